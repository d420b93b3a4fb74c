"""A new kind of condition is one row of CONDITIONS."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.runs import assert_same_states, train
from PIL import Image

from vaebm_jax.config import ConditionConfig, Config, DataConfig, validate
from vaebm_jax.data.batch import as_pixels
from vaebm_jax.data.conditions import CONDITIONS, Condition, join, observed_of
from vaebm_jax.data.loading import first_images
from vaebm_jax.evaluation.metrics import psnr
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import recovery


def second_columns(keys, image, config):
    """Every second column is hidden; its hint is the column before it."""
    del keys, config
    is_observed = jnp.broadcast_to(jnp.arange(image.shape[2]) % 2 == 0, image.shape[:3])
    return join(jnp.repeat(image[:, :, ::2], 2, axis=2), is_observed)


def white(image, is_observed, config):
    """Of a user's own mask: white where pixels are hidden."""
    del config
    return join(
        jnp.where(is_observed[..., jnp.newaxis], image, 1.0)[None], jnp.asarray(is_observed)[None]
    )


def even_sizes(config):
    if config.data.image_size % 2:
        yield 'data.image_size', 'even where columns are hidden'


@pytest.fixture
def config(tiny_config, monkeypatch):
    row = Condition(second_columns, of_mask=white, needs=even_sizes)
    monkeypatch.setitem(CONDITIONS, 'second_columns', row)
    config = dataclasses.replace(tiny_config, num_steps=4, sample_every=2)
    config.condition.kind = 'second_columns'
    config.schedule.name = 'constant'
    return config


def test_it_trains_goes_on_recovers_and_is_scored(config, tmp_path, capfd):
    config.condition.jitter, config.condition.updates = 0.1, 'all'
    uninterrupted = train(config, tmp_path / 'whole')
    idle = 'not used by condition.kind second_columns: condition.jitter\n'
    assert idle in capfd.readouterr().err
    run = tmp_path / 'run'
    train(dataclasses.replace(config, num_steps=2), run)
    assert_same_states(train(config, run), uninterrupted)
    assert (run / 'samples/step_00000002.png').is_file()

    truth = as_pixels(first_images(config.data, 'test', 20))
    before = np.repeat(truth[:, :, ::2], 2, axis=2)
    hidden = np.broadcast_to(np.arange(8) % 2 == 1, truth.shape[:3])
    recovery.sample_recoveries(config, run, num_samples=20, num_recoveries=2)
    for name in ('ancestral', 'refined'):
        with np.load(run / f'samples/{name}.npz') as file:
            images = file['images']
        assert images.shape == (20, 2, 8, 8, 1)
        np.testing.assert_array_equal(images[:, 1][~hidden], truth[~hidden])

    result = recovery.evaluate_recovery(config, run, num_samples=20, num_recoveries=2)
    assert json.loads((run / 'evaluation.json').read_text()) == result
    rounded = as_pixels(np.uint8(np.round((before + 1.0) * 127.5)))
    expected = psnr(truth, rounded, hidden).mean()
    assert result['fill_hint']['psnr_hole'] == pytest.approx(expected)
    assert result['fill_harmonic']['psnr_hole'] > expected and 'fill_ridge' not in result


def test_a_photograph_with_a_mask_has_the_rows_own_hint(config, tmp_path, monkeypatch):
    train(config, tmp_path / 'run')
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8), np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3:5] = 255
    for name, image in (('photo', pixels), ('mask', mask)):
        Image.fromarray(image).save(tmp_path / f'{name}.png')
    given, recover = [], recovery.recover
    monkeypatch.setattr(recovery, 'recover', lambda *args: given.append(args[3]) or recover(*args))
    recovery.recover_file(
        config,
        tmp_path / 'run',
        input_file=str(tmp_path / 'photo.png'),
        mask_file=str(tmp_path / 'mask.png'),
        output_file=str(tmp_path / 'out.png'),
    )
    np.testing.assert_array_equal(observed_of(given[0])[0, ..., 0], mask == 0)
    assert np.all(given[0][0, ..., 0][mask > 0] == 1.0)
    with Image.open(tmp_path / 'out.png') as image:
        np.testing.assert_array_equal(np.asarray(image)[mask == 0], pixels[mask == 0])


def test_its_name_and_what_it_needs_are_checked(config, tmp_path):
    validate(config)
    odd = dataclasses.replace(config, data=DataConfig('folder', str(tmp_path), image_size=7))
    with pytest.raises(UserError, match='data.image_size must be even where columns are hidden, g'):
        train(odd, tmp_path / 'run')
    unknown = dataclasses.replace(config, condition=ConditionConfig('third_columns'))
    known = 'one of none, .*, second_columns'
    with pytest.raises(UserError, match=f"kind must be {known}, got 'third_columns'"):
        train(unknown, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_factor_of_zero_is_refused_in_words():
    config = Config(condition=ConditionConfig('low_resolution', factor=0))
    with pytest.raises(UserError, match='^condition.factor must be at least 2, got 0$'):
        validate(config)
