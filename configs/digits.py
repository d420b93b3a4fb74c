"""Handwritten digits of 8x8 pixels, embedded in scikit-learn: the default, nothing to download.

    python -m vaebm_jax.main --config=configs/digits.py --workdir=runs/digits

2,500 steps take about a minute on two CPU cores. Dense networks; sizes and rates are the defaults
of the dataclasses, and the decoder also learns from the z that its chain started from. A logistic
regression gives 60 % of refined samples a probability of 0.9 or more, 36 % of ancestral ones (seeds
0 and 1; with the poster's learning alone 56 to 59 % and 24 to 26 %), and 88 % of the digits.
Healthy: `rate` near 10 nats, `spread` above 0.9, both energies near -8e4 nats with a gap of a few
thousand.
"""

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(
        variant,
        default=c.Config(name='digits', steps_per_call=10, vae=c.VAEConfig(known_z_weight=1.0)),
    )
