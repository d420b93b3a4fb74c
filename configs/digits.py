"""Handwritten digits of 8x8 pixels, embedded in scikit-learn: the default, nothing to download.

    python -m vaebm_jax.main --config=configs/digits.py --workdir=runs/digits

2,500 steps take a minute or two on two CPU cores. Dense networks; every size and rate is the
dataclasses' default. Healthy: `rate` near 10 nats, `spread` above 0.9, both energies near
-8e4 nats with a gap of a few thousand.
"""

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(variant, default=c.Config(name='digits', steps_per_call=10))
