import ast
import copy as copy_module
import dataclasses
import pathlib
import pickle
import sys

import pytest

from vaebm_jax import config as config_package
from vaebm_jax.config import (
    FREE_ON_RESUME,
    ConditionConfig,
    Config,
    LangevinConfig,
    cifar10_paper_network,
    described,
    flatten,
    from_json,
    refuse_other_run,
    renamed,
    to_json,
    validate,
)
from vaebm_jax.runtime.errors import UserError


def test_json_keeps_everything():
    config = Config(seed=7, network=cifar10_paper_network())
    assert from_json(to_json(config)) == config
    assert hash(from_json(to_json(config))) == hash(config)


RENAMED = {
    'condition.moves': 'condition.updates',
    'condition.profiles': 'condition.edge_profiles',
    'condition.side': 'condition.hole_size',
}


def test_a_config_of_before_is_read_by_its_names():
    assert renamed(Config()) == RENAMED
    text = '{"seed": 3, "condition": {"moves": "all", "profiles": 0.75, "side": 0.4, "factor": 2}}'
    condition = ConditionConfig(updates='all', edge_profiles=0.75, hole_size=0.4, factor=2)
    assert from_json(text) == Config(seed=3, condition=condition)
    both = '{"condition": {"side": 0.4, "hole_size": 0.5}}'
    with pytest.raises(UserError, match='condition.side is condition.hole_size now, and both are'):
        from_json(both)


def test_a_name_of_before_is_told_todays():
    config = Config()
    with pytest.raises(AttributeError, match="'moves' any more: it is 'updates' now"):
        config.condition.moves = 'all'
    with pytest.raises(TypeError, match="'profiles' any more: it is 'edge_profiles' now"):
        ConditionConfig('center_hole', profiles=0.5)
    with pytest.raises(TypeError, match="'side' any more: it is 'hole_size' now"):
        dataclasses.replace(config.condition, side=0.4)
    with pytest.raises(TypeError, match="LangevinConfig has no setting 'moves'$"):
        LangevinConfig(moves='all')


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('batch_size', 0, 'batch_size must be at least 1, got 0'),
        ('batch_size', 1.5, 'batch_size must be a whole number, got 1.5'),
        ('num_steps', True, 'num_steps must be a whole number, got True'),
        ('seed', -1, 'seed must be from 0 to'),
        ('dtype', 'float16', "dtype must be one of float32, bfloat16, got 'float16'"),
        ('method', 'gan', 'method must be one of'),
        ('ema_decay', 1.0, r'ema_decay must be in \[0, 1\), got 1.0'),
        ('langevin.step_size', float('nan'), 'langevin.step_size must be a positive number'),
        ('langevin.step_size', 0.04, r'below 2 \* energy.reference_std = 0.032, or the chain div'),
        ('energy.reference_mean', -1.5, r'energy.reference_mean must be in \[-1, 1\], got -1.5'),
        ('data.headroom', -0.1, 'data.headroom must be 0 or a positive number, got -0.1'),
        ('energy.reference_std', 0.0, 'energy.scale must be given where energy.reference_std is 0'),
        ('data.name', 'imagenet', 'data.name must be one of digits, mnist'),
        ('data.name', 'folder', 'data.dir must be the path of a folder of images'),
        ('data.name', 'mnist', 'data.image_size must be 28 or a divisor of it for mnist, got 8'),
        ('data.num_channels', 2, 'data.num_channels must be 1 or 3, got 2'),
        ('condition.kind', 'hole', 'condition.kind must be one of none, center_hole, random_hole'),
        ('condition.kind', 'gray', 'data.num_channels must be 3 where condition.kind is gray'),
        ('condition.updates', 'some', 'condition.updates must be one of hidden, all'),
        ('condition.hole_size', 1.0, r'condition.hole_size must be in \(0, 1\)'),
        ('vae.guess_weight', 1.0, 'vae.guess_weight must be 0 where condition.kind is none'),
        ('vae.mean_weight', 1.0, 'vae.mean_weight must be 0 where condition.kind is none'),
        ('data.load_size', 7, 'data.load_size must be 0 or at least data.image_size = 8'),
        ('data.white_level', 200, 'data.white_level must be 0, or from 255 to 65535, got 200'),
        ('data.white_level', 4095, 'data.white_level must be 0 but for a folder of images, got 40'),
        ('data.crop', 'top', 'data.crop must be one of center, left, right'),
        (
            'network.decoder',
            (('down', 8, 3),),
            'network.decoder must be of as many up rows as down',
        ),
        (
            'network.decoder',
            (('down', 8, 3), ('up', 8, 3)),
            'condition.kind must be another where network.decoder has down rows',
        ),
        ('network.energy', (('conv', 3),), 'network.energy must be a tuple of rows'),
        ('network.energy', (('up', 3, 3),), 'network.energy must be a tuple of rows'),
        (
            'network.energy',
            (('dense', 3), ('conv', 3, 3, 1)),
            'network.energy must be in the order',
        ),
        ('network.decoder', (('up', 3, 3),), 'network.decoder must be in the order'),
        ('network.decoder', (('map', 3), ('map', 3)), 'network.decoder must be in the order'),
        ('langevin.num_steps', 0, 'langevin.num_steps must be at least 1, got 0'),
        ('network.decoder', ('dense', 3), 'network.decoder must be a tuple of rows'),
        ('network.encoder', (('dropout', 1.0),), 'network.encoder must be a tuple of rows'),
    ],
)
def test_wrong_values_are_named_with_what_would_be_right(field, value, message):
    config = Config()
    *sections, name = field.split('.')
    section = config
    for part in sections:
        section = getattr(section, part)
    setattr(section, name, value)
    with pytest.raises(UserError, match=message) as error:
        validate(config)
    assert '\n' not in str(error.value)


def test_a_config_can_be_changed_until_it_is_used():
    config = Config()
    config.langevin.num_steps = 3
    assert config != Config() and config == Config(langevin=LangevinConfig(num_steps=3))
    with pytest.raises(AttributeError, match='LangevinConfig has no setting .num_stepz.'):
        config.langevin.num_stepz = 3
    copy = dataclasses.replace(config, seed=1)
    copy.langevin.num_steps = 4
    assert config.langevin.num_steps == 3, 'a copy shares no section'
    hash(config)
    assert copy in {copy: 0} and copy not in {config: 0}
    for part, name in ((config, 'seed'), (config, 'langevin'), (config.langevin, 'num_steps')):
        with pytest.raises(dataclasses.FrozenInstanceError, match='dataclasses.replace'):
            setattr(part, name, 5)
        with pytest.raises(AttributeError, match='cannot be deleted'):
            delattr(part, name)
    assert config.langevin.num_steps == 3
    for changeable in (dataclasses.replace(config), copy_module.deepcopy(config)):
        assert changeable == config and hash(changeable) == hash(config)


@pytest.mark.parametrize(
    'make', [dataclasses.replace, copy_module.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_a_copy_of_a_used_config_can_be_changed(make):
    config = Config()
    before = hash(config)
    changed = make(config)
    changed.langevin.num_steps, changed.seed = 7, 7
    assert hash(changed) != before == hash(config) and config == Config()


def test_several_wrong_values_are_one_line():
    with pytest.raises(UserError, match='batch_size .*; latent_dim .*; dtype') as error:
        validate(Config(batch_size=-1, latent_dim=0, dtype='x'))
    assert str(error.value).count(';') == 2


def test_a_mean_without_a_reference_term_is_refused():
    config = Config()
    config.energy = dataclasses.replace(
        config.energy, reference_std=0.0, scale=1.0, reference_mean=-1.0
    )
    with pytest.raises(UserError, match='energy.reference_mean must be 0 where energy.referen'):
        validate(config)
    config.energy.reference_mean = 0.0
    validate(config)


def test_the_reference_may_stand_as_far_out_as_the_data():
    config = Config()
    config.data = dataclasses.replace(config.data, headroom=0.25)
    config.energy = dataclasses.replace(config.energy, reference_mean=-1.25)
    validate(config)
    config.energy.reference_mean = -1.26
    with pytest.raises(UserError, match=r'energy.reference_mean must be in \[-1.25, 1.25\], got'):
        validate(config)


def test_headroom_is_of_whole_images():
    config = Config()
    config.data = dataclasses.replace(config.data, headroom=0.25)
    config.condition = dataclasses.replace(config.condition, kind='center_hole')
    with pytest.raises(UserError, match='data.headroom must be 0 where condition.kind is not non'):
        validate(config)
    config.data = dataclasses.replace(config.data, name='ring', image_size=1, num_channels=2)
    with pytest.raises(UserError, match='data.headroom must be 0 for the points of ring'):
        validate(config)


def test_what_may_differ_on_resume_is_listed_in_one_place():
    assert set(FREE_ON_RESUME) <= set(flatten(Config()))
    old, new = Config(), Config()
    for name in FREE_ON_RESUME:
        section, _, field = name.rpartition('.')
        setattr(getattr(new, section) if section else new, field, None)
    refuse_other_run(old, new)
    with pytest.raises(UserError, match='seed was 0, now 3$'):
        refuse_other_run(old, dataclasses.replace(new, seed=3))


def test_every_setting_says_what_it_means_and_has_a_range():
    """But for what is true or false, any text, or only right or wrong beside other settings."""
    free = {'name', 'init_from', 'data.dir'}
    free |= {'data.array_name', 'data.load_size', 'energy.reference_mean'}
    for name, (field, default) in described(Config()).items():
        assert field.metadata['meaning']
        assert bool(field.metadata['ranges']) != (type(default) is bool or name in free), name


def test_a_rule_across_settings_may_take_each_of_them_for_right():
    config = Config()
    config.condition = dataclasses.replace(config.condition, kind='low_resolution', factor=0)
    with pytest.raises(UserError, match='^condition.factor must be at least 2, got 0$'):
        validate(config)


def test_a_table_of_names_is_not_left_out():
    with pytest.raises(KeyError, match='method|data.name|condition.kind'):
        validate(Config(), {})


def test_the_settings_need_the_standard_library_alone():
    folder = pathlib.Path(config_package.__file__).parent
    for path in folder.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name.startswith(('vaebm_jax.config', 'vaebm_jax.runtime.errors'))
                assert own or name.partition('.')[0] in sys.stdlib_module_names, (path, name)
