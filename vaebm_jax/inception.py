"""Inception-v3, under the name that scripts outside this package import."""

from vaebm_jax.evaluation.inception import inception_features, load_inception

__all__ = ['inception_features', 'load_inception']
