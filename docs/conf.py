"""The documentation site: launch/docs.sh builds it, notebooks executed, warnings as errors."""

import os

import vaebm_jax

os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # Of the notebooks.

project = 'vaebm_jax'
author = copyright = 'vaebm_jax developers'
release = version = vaebm_jax.__version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4
nb_execution_mode = 'cache'  # A notebook runs again when its code has changed.
nb_merge_streams = True
nb_execution_timeout = 900
nb_execution_raise_on_error = True

default_role = 'literal'  # Docstrings are written in Markdown's way: `x` is code.
highlight_language = 'none'  # Of indented blocks: commands and what they print.
autodoc_typehints = 'none'
napoleon_use_rtype = False

html_theme = 'sphinx_book_theme'
html_title = 'vaebm_jax'
html_theme_options = {'show_toc_level': 2}
