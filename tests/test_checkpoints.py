import pytest

from vaebm_jax.checkpoints import checkpoint_manager, load
from vaebm_jax.config import to_json
from vaebm_jax.errors import UserError
from vaebm_jax.files import write_atomically


def test_load_says_what_is_missing(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r'workdir must hold a run, but .*config\.json'):
        load(tmp_path)
    write_atomically(tmp_path / 'config.json', to_json(tiny_config).encode())
    with pytest.raises(UserError, match='no checkpoint yet'):
        load(tmp_path)
    with checkpoint_manager(tmp_path):
        pass
    with pytest.raises(UserError, match='no checkpoint yet'):
        load(tmp_path)
    write_atomically(tmp_path / 'config.json', b'{"seed": 1')
    with pytest.raises(UserError, match=r'config\.json: not JSON'):
        load(tmp_path)
    write_atomically(tmp_path / 'config.json', b'{"langevin": {"num_stepz": 1}}')
    with pytest.raises(UserError, match='no config field langevin.num_stepz'):
        load(tmp_path)
