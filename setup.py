"""The packages; setup.cfg has the rest. In a wheel the configs are within the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=['vaebm_jax*']), 'vaebm_jax.configs'],
    package_dir={'vaebm_jax.configs': 'configs'},
)
