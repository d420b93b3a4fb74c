"""PixelIQN: quantiles in place of a likelihood. What it shares with PixelCNN is tested there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from helpers.configs import pixels

from vaebm_jax import create_states
from vaebm_jax.config import DataConfig
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.pixeliqn import pixeliqn_step, sample, scores, uniform
from vaebm_jax.samplers.keys import chain_keys

KEY = jax.random.key(3)


def test_it_learns_the_quantiles_of_independent_values():
    """Values uniform in [-1, 1]: Q(tau) is 2 tau - 1, and the loss 1/6 of its width."""
    config = pixels('pixeliqn')
    config.data.image_size = 2
    config.vae.learning_rate = 0.01
    states = create_states(KEY, config)
    step = jax.jit(pixeliqn_step, static_argnames='config')
    draw = jax.jit(lambda i: jax.random.uniform(jax.random.fold_in(KEY, i), (256, 2, 2, 1)))
    for index in range(400):
        states, metrics = step(KEY, states, Batch(2.0 * draw(index) - 1.0), config)
    assert abs(metrics['pinball'] - 1 / 6) < 0.02
    keys = chain_keys(KEY, 500)
    drawn = sample((keys, keys), states, config, 500)['ancestral']
    tau = uniform(keys, (2, 2, 1))
    assert np.abs(drawn - (2.0 * tau - 1.0)).mean() < 0.1
    found = scores(keys, states, config, 2.0 * draw(0)[:100].repeat(5, 0) - 1.0)
    assert found['pinball'].shape == found['crossing'].shape == (500,)
    assert abs(found['pinball'].mean() - 1 / 6) < 0.02 and found['crossing'].mean() < 0.02


def test_samples_stay_in_the_range_of_the_data():
    config = dataclasses.replace(pixels('pixeliqn'), data=DataConfig(headroom=0.5))
    states = create_states(KEY, config)
    model = states.models['likelihood']
    params = jax.tree.map(lambda leaf: 100.0 * leaf, model.params)
    states = states.replace(likelihood=model.replace(params=params))
    keys = chain_keys(KEY, 20)
    drawn = np.asarray(sample((keys, keys), states, config, 20)['ancestral'])
    assert drawn.max() == 1.5 and drawn.min() == -1.5


def test_a_quantile_that_falls_with_tau_crosses():
    """Of a net that gives -tau, every pair crosses; of one that gives tau, none."""
    config = pixels('pixeliqn')
    states = create_states(KEY, config)
    keys, images = chain_keys(KEY, 4), jnp.zeros((4, 8, 8, 1))
    for sign, share in ((-1.0, 1.0), (1.0, 0.0)):
        model = states.models['likelihood'].replace(
            apply_fn=lambda variables, x, tau, sign=sign: sign * tau[..., jnp.newaxis]
        )
        found = scores(keys, states.replace(likelihood=model), config, images)
        np.testing.assert_array_equal(found['crossing'], share)
