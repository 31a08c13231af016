"""Configuration of the site: `python -m sphinx -W docs docs/_build/html` builds it."""

import os
import pathlib
import sys

_DOCS = pathlib.Path(__file__).parent
_ROOT = _DOCS.parent
sys.path[:0] = [str(_ROOT), str(_DOCS)]
# Kernels of notebooks import the checkout too, and run on CPU devices.
os.environ['PYTHONPATH'] = os.pathsep.join([str(_ROOT), os.environ.get('PYTHONPATH', '')])
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'  # compiling takes most of the time

project = html_title = 'contrastive_jax'
author = 'the contrastive_jax authors'
extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
  'sphinx_copybutton',
  'sphinx_design',
  'extensions.docstrings',
  'extensions.mathml',
  'extensions.checks',
]
exclude_patterns = ['_build']

# Pages and notebooks.
myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 3
html_math_renderer = 'mathml'
nb_execution_mode = 'cache'
nb_execution_timeout = 240  # seconds per cell
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_mime_priority_overrides = [('html', 'text/plain', 0)]  # the run's lines of progress

# Docstrings: single backticks are code, and a link where they name an object.
default_role = 'py:obj'
napoleon_numpy_docstring = False
napoleon_custom_sections = [('Attributes', 'params_style')]
napoleon_use_rtype = False
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_theme = 'sphinx_book_theme'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = html_show_sphinx = False
html_theme_options = {
  'show_toc_level': 2,
  'use_download_button': False,
  'use_fullscreen_button': False,
  'navbar_persistent': [],  # the search is in the sidebar
}
