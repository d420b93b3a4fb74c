"""PixelIQN (G. Ostrovski et al., Autoregressive quantile networks for generative modeling, 2018):
an image's values one after another, each a quantile of its distribution given earlier values.

The network is the gated PixelCNN with one output, Q(tau), in place of a softmax; it learns by the
quantile loss, with a tau for each value, and draws by uniform tau. There is no likelihood. There is
no public code, so these are chosen here: gates of the horizontal stack read tau by a linear map
(of the value's own tau and those of earlier channels), Huber's width is 0.002, which we could not
verify, and pixels are in [-1, 1]. Earlier taus, which the gates pass on, are noise that is
independent of the data, but not of a sample's earlier values.
"""

import chex
import jax
import jax.numpy as jnp

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.devices import image_keys
from vaebm_jax.methods.losses import pinball
from vaebm_jax.methods.parts import Metrics, learn
from vaebm_jax.methods.pixelcnn import one_by_one
from vaebm_jax.models.states import States, TrainState
from vaebm_jax.samplers.keys import fold_in, uniform

_HUBER_WIDTH = 0.002  # Of pixels in [-1, 1]; a wide one would bias the quantiles.


def quantile(model: TrainState, images: chex.Array, tau: chex.Array) -> chex.Array:
    """Q(tau) of each value given the earlier ones; all are `[B, H, W, C]`."""
    return model.apply_fn({'params': model.params}, images, tau=tau)[..., 0]


def pixeliqn_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """One step on the quantile loss; arguments and results are those of `vaebm.train_step`."""
    keys = image_keys(jax.random.fold_in(key, states.step), batch, axis_name)
    tau = uniform(keys, shape=batch.image.shape[1:])

    def loss_fn(models):
        error = batch.image - quantile(models['likelihood'], batch.image, tau)
        loss = jnp.mean(pinball(error, tau, _HUBER_WIDTH))
        return loss, {'pinball': loss}

    models = {'likelihood': states.models['likelihood']}
    models, metrics = learn(models, loss_fn, config, axis_name)
    return states.advance(**models), metrics


def sample(
    keys: tuple[chex.PRNGKey, chex.PRNGKey],
    states: States,
    config: Config,
    num_samples: int,
    condition: chex.Array | None = None,
) -> dict[str, chex.Array]:
    """Ancestral samples: `sample` in METHODS. Each value is clipped to the range of the data."""
    del num_samples, condition
    size, limit = config.data.image_size, 1.0 + config.data.headroom
    tau = uniform(keys[1], shape=(size, size, config.data.num_channels))
    clipped = lambda quantiles, index: jnp.clip(quantiles[:, 0], -limit, limit)
    images = one_by_one(states.models['likelihood'], config, len(keys[1]), clipped, tau)
    return {'ancestral': images}


def scores(
    keys: chex.PRNGKey, states: States, config: Config, images: chex.Array
) -> dict[str, chex.Array]:
    """Of each image, `[N]`: `scores` in METHODS.

    The quantile loss at one random tau a value, and `crossing`, the share of values whose quantile
    at the larger of two random taus is below that at the smaller: no layer forbids it.
    """
    del config
    first, second = (uniform(fold_in(keys, part), shape=images.shape[1:]) for part in range(2))
    at_first, at_second = (
        quantile(states.models['likelihood'], images, tau) for tau in (first, second)
    )
    values = {
        'pinball': pinball(images - at_first, first),
        'crossing': jnp.float32((at_second - at_first) * (second - first) < 0.0),
    }
    return {name: jnp.mean(value, axis=(1, 2, 3)) for name, value in values.items()}
