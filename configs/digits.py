"""Handwritten digits of 8x8 pixels, embedded in scikit-learn: the default, nothing to download.

python -m vaebm_jax.main --config=configs/digits.py --workdir=runs/digits
"""

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    """Dense networks; every size and rate is the dataclasses' own default."""
    return c.choose(variant, default=c.Config(name='digits', steps_per_call=10))
