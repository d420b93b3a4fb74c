"""cCoopNets: cooperative networks with a condition, whose generator also learns from the truth.

J. Xie, Z. Zheng, X. Fang, S.-C. Zhu, Y. N. Wu, Cooperative training of fast thinking initializer
and slow thinking solver for conditional learning, 2021. The generator learns from the refined
recoveries as in `methods.coopnets`, by the z that their chains started from, and, with weight
`vae.guess_weight`, from the absolute distance to the true image.

Both are means over the batch and sums over pixels, which are missing ones: observed pixels have no
error. The authors' code has the mean of the first with weight 0.8 and the *sum* over the batch of
the second with 0.2, so at their batch of 50 its ratio is 0.2 · 50 / 0.8, a `guess_weight` of 12.5;
with means throughout it is 0.25. Their chain has 20 steps without noise (`langevin.noise_scale=0`);
their energy is the mean of 100 outputs of its network, here the sum. Sizes, rates and the chain are
the config's; what else differs: `methods.coopnets`.

There is no warm start, and the energy's rate of `configs/facades.py:64`, made for 240 iterations
after one, is too fast here: after 100 iterations chains run far from where they start, and colours
are wrong. With `energy.learning_rate=5e-5` and `vae.guess_weight=12.5` 300 iterations were steady.
"""

import chex

from vaebm_jax.config import Config
from vaebm_jax.data.batch import Batch
from vaebm_jax.methods.coopnets import coopnets_step
from vaebm_jax.methods.parts import Metrics
from vaebm_jax.models.states import States


def ccoopnets_step(
    key: chex.PRNGKey,
    states: States,
    batch: Batch,
    config: Config,
    axis_name: str | None = None,
) -> tuple[States, Metrics]:
    """`coopnets_step` with the config's `vae.guess_weight`."""
    return coopnets_step(key, states, batch, config, axis_name, config.vae.guess_weight)
