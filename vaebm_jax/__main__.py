"""python -m vaebm_jax: the command line of main.py."""

from vaebm_jax.main import run

run()
