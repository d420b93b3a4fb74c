"""PixelIQN: quantiles in place of a likelihood. What it shares with PixelCNN is tested there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.configs import pixels

from vaebm_jax import create_states
from vaebm_jax.config import DataConfig
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.pixeliqn import pixeliqn_step, sample, scores
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.samplers.keys import chain_keys, uniform

KEY = jax.random.key(3)


def test_it_learns_the_quantiles_of_a_uniform_value():
    """Of images of one value, uniform in [-1, 1]: Q(tau) is 2 tau - 1, and the mean loss 2/12."""
    config = pixels('pixeliqn')
    config.data.image_size = 1
    states = create_states(KEY, config)

    def images(step, count):
        return jax.random.uniform(jax.random.fold_in(KEY, step), (count, 1, 1, 1), minval=-1.0)

    def step(index, states):
        return pixeliqn_step(KEY, states, Batch(images(index, 64)), config)[0]

    states = jax.jit(lambda states: jax.lax.fori_loop(0, 400, step, states))(states)
    keys = chain_keys(KEY, 1000)
    drawn = jax.jit(lambda: sample((keys, keys), states, config, 1000)['ancestral'])()
    tau = uniform(keys, shape=(1, 1, 1))
    assert np.abs(drawn - (2.0 * tau - 1.0)).mean() < 0.1
    found = jax.jit(lambda images: scores(keys, states, config, images))(images(500, 1000))
    assert found['pinball'].shape == found['crossing'].shape == (1000,)
    assert abs(found['pinball'].mean() - 1 / 6) < 0.02 and found['crossing'].mean() < 0.02


def test_samples_stay_in_the_range_of_the_data():
    config = dataclasses.replace(pixels('pixeliqn'), data=DataConfig(headroom=0.5))
    states = create_states(KEY, config)
    model = states.models['likelihood']
    params = jax.tree.map(lambda leaf: 100.0 * leaf, model.params)
    states = states.replace(likelihood=model.replace(params=params))
    keys = chain_keys(KEY, 20)
    drawn = jax.jit(lambda: sample((keys, keys), states, config, 20)['ancestral'])()
    assert drawn.max() == 1.5 and drawn.min() == -1.5


def test_a_quantile_that_falls_with_tau_crosses():
    """Of a net that gives -tau, every pair crosses; of one that gives tau, none."""
    keys, images = chain_keys(KEY, 4), jnp.zeros((4, 8, 8, 1))
    for sign, share in ((-1.0, 1.0), (1.0, 0.0)):
        net = lambda variables, x, tau, sign=sign: sign * tau[..., jnp.newaxis]
        model = TrainState.create(apply_fn=net, params={}, tx=optax.sgd(0.1))
        found = scores(keys, States(likelihood=model), pixels('pixeliqn'), images)
        np.testing.assert_array_equal(found['crossing'], share)
