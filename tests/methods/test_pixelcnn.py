"""Methods that draw an image value after value: what is special to them, and PixelCNN's answers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configs import pixels
from helpers.runs import rows, train

from vaebm_jax import create_states, generate
from vaebm_jax.config import ConditionConfig, Config, DataConfig, validate
from vaebm_jax.data.batch import as_pixels, to_uint8
from vaebm_jax.data.loading import first_images
from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.methods import pixelcnn
from vaebm_jax.models.apply import averaged
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import chain_keys
from vaebm_jax.tasks.images import sample
from vaebm_jax.tasks.report import write_report

KEY = jax.random.key(3)
METHODS = ['pixelcnn', 'pixeliqn']


def with_last_layer(states, bias=0.0):
    """The states with a last layer that gives `bias`, whatever the image."""
    model = states.models['likelihood']
    params = jax.tree.map(jnp.copy, model.params)
    last = params['horizontal']['last']
    last['kernel'] = 0.0 * last['kernel']
    last['bias'] = jnp.broadcast_to(bias, last['bias'].shape)
    return states.replace(likelihood=model.replace(params=params, ema_params=params))


@pytest.mark.parametrize('method', METHODS)
def test_a_run_is_sampled_and_scored(tmp_path, method):
    config = dataclasses.replace(pixels(method), steps_per_call=2)
    whole = train(config, tmp_path / 'whole')
    assert set(whole.models) == {'likelihood'}
    name = {'pixelcnn': 'bits_per_dim', 'pixeliqn': 'pinball'}[method]
    values = [row[name] for row in rows(tmp_path / 'whole')]
    assert len(values) == 3 and values[-1] < values[0]

    sample(config, tmp_path / 'whole', num_samples=64)
    folder = tmp_path / 'whole' / 'samples'
    with np.load(folder / 'ancestral.npz') as file:
        drawn = file['images']
    assert {path.name for path in folder.iterdir()} == {
        *('grid.png', 'step_00000006.png', 'ancestral.npz', 'ancestral')
    }
    for count in (64, 3):  # Image i does not depend on how many are drawn.
        images, same = generate(jax.random.key(config.seed), whole, config, count)
        np.testing.assert_array_equal(images, same)
        np.testing.assert_allclose(images, drawn[:count], atol=1e-4)
    assert np.ptp(drawn, axis=0).min() > 0.01 and np.abs(drawn).max() < 1.0 + 1e-6

    result = evaluate(config, tmp_path / 'whole', num_samples=64)
    assert json.loads((tmp_path / 'whole' / 'evaluation.json').read_text()) == result
    names = {name} | ({'crossing'} if method == 'pixeliqn' else set())
    scores = {f'{name}{split}' for name in names for split in ('', '_train', '_test')}
    assert set(result['ancestral']) == scores | {'num_samples', 'langevin_steps'}
    page = write_report(tmp_path / 'whole').read_text()
    assert 'not drawn yet' not in page and f'<td>{name}_test</td>' in page
    if method == 'pixelcnn':
        model = averaged(whole).models['likelihood']
        test = as_pixels(first_images(config.data, 'test', 1000))
        expected = {'bits_per_dim': drawn, 'bits_per_dim_test': test}
        for name, images in expected.items():
            mean = float(jnp.mean(pixelcnn.image_bits(model, jnp.asarray(images))))
            assert result['ancestral'][name] == pytest.approx(mean, rel=1e-5)


def test_without_a_last_layer_there_are_8_bits(tmp_path):
    states = with_last_layer(create_states(KEY, pixels('pixelcnn')))
    images = as_pixels(first_images(DataConfig(), 'test', 5))
    bits = jax.jit(pixelcnn.image_bits)(states.models['likelihood'], images)
    np.testing.assert_allclose(bits, np.full(5, 8.0), rtol=1e-6)


def test_values_are_drawn_by_the_softmax():
    """Three levels are left; their shares in 64 x 200 values are within 5 standard errors."""
    config = pixels('pixelcnn')
    levels, shares = np.array([0, 100, 255]), np.array([0.5, 0.3, 0.2])
    bias = np.full(256, -1e9, np.float32)
    bias[levels] = np.log(shares)
    states = with_last_layer(create_states(KEY, config), bias=jnp.asarray(bias))
    images, _ = generate(KEY, states, config, 200)
    drawn = to_uint8(images)
    found = np.array([(drawn == level).mean() for level in levels])
    assert found.sum() == pytest.approx(1.0)
    assert (np.abs(found - shares) < 5 * np.sqrt(shares * (1 - shares) / drawn.size)).all()
    np.testing.assert_allclose(as_pixels(drawn), images, atol=1e-6)


@pytest.mark.parametrize('method', METHODS)
def test_drawing_row_by_row_is_drawing_with_the_whole_network(method):
    """In colours, where a value also depends on its pixel's earlier channels."""
    config = pixels(method, channels=3)
    model = create_states(KEY, config).models['likelihood']
    rng = np.random.default_rng(0)
    healthy = lambda leaf: np.float32(2 * rng.normal(size=leaf.shape) / leaf.shape[0] ** 0.5)
    model = model.replace(params=jax.tree.map(healthy, model.params))
    draw = lambda outputs, index: jnp.tanh(outputs @ jnp.cos(jnp.arange(outputs.shape[-1]) + index))
    shape = (2, config.data.image_size, config.data.image_size, 3)
    tau = jax.random.uniform(KEY, shape) if method == 'pixeliqn' else None
    drawn = jax.jit(lambda: pixelcnn.one_by_one(model, config, 2, draw, tau))()

    @jax.jit
    def with_one_more(images, index):
        outputs = model.apply_fn({'params': model.params}, images, None, tau)
        at = (slice(None), *jnp.unravel_index(index, shape[1:]))
        return images.at[at].set(draw(outputs[at], index))

    images = jnp.zeros(shape)
    for index in range(np.prod(shape[1:])):
        images = with_one_more(images, index)
    np.testing.assert_allclose(drawn, images, atol=1e-3)
    assert np.std(images) > 0.2


@pytest.mark.parametrize(
    'method, settings, wrong',
    [
        ('pixelcnn', {'data': DataConfig(dequantize=True)}, 'data.dequantize must be False'),
        ('pixelcnn', {'data': DataConfig(headroom=0.1)}, 'data.headroom must be 0 for pixelcnn'),
        *(
            (method, settings, wrong.format(method))
            for method in METHODS
            for settings, wrong in (
                (
                    {'data': DataConfig(name='ring', image_size=1, num_channels=2)},
                    'data.name must be a set of images for {}',
                ),
                (
                    {'condition': ConditionConfig('lower_half')},
                    'condition.kind must be none with method {}',
                ),
            )
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, method, settings, wrong):
    config = Config(method=method, **settings)
    if config.data.name == 'ring':
        config.network.decoder_output = 'linear'
    with pytest.raises(UserError, match=wrong):
        train(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_quantiles_need_no_exact_levels():
    validate(Config(method='pixeliqn', data=DataConfig(dequantize=True, headroom=0.1)))


def test_a_value_is_drawn_by_its_images_key_and_its_index():
    config = pixels('pixelcnn')
    states = with_last_layer(create_states(KEY, config))
    key = chain_keys(jax.random.key(5), 3)
    drawn = pixelcnn.sample((key, key), states, config, 3)['ancestral']
    level = jax.random.categorical(jax.random.fold_in(key[2], 8 * 4 + 7), jnp.zeros(256))
    assert np.asarray(to_uint8(drawn))[2, 4, 7, 0] == level
