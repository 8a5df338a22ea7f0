"""The site: `sphinx-build -W docs site` builds it, with no warning allowed.

Sphinx, since jax, flax and optax have it and it is maintained; MyST, since
pages and notebooks are Markdown.
"""

import importlib.util
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import diffflow_jax  # noqa: E402

project = "diffflow_jax"
author = "the diffflow_jax authors"
copyright = author
version = release = diffflow_jax.__version__
extensions = [
  "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
  "sphinx.ext.viewcode", "sphinx.ext.mathjax", "sphinx_copybutton",
  "docstrings", "api_pages", "copies",
]  # fmt: skip
if importlib.util.find_spec("sphinx-mathjax-offline"):  # else from the network
  extensions.append("sphinx-mathjax-offline")
exclude_patterns = ["_ext", "_build"]
html_theme = "furo"
html_title = "diffflow_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
# with NOTEBOOKS=auto they are run, for minutes each, and have their figures
nb_execution_mode = os.environ.get("NOTEBOOKS", "off")
nb_execution_timeout = 3600
nb_execution_raise_on_error = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
numfig = True  # an equation has its page's number first: 2.3
math_number_all = False
copybutton_prompt_text = "$ "
suppress_warnings = ["myst.header"]
