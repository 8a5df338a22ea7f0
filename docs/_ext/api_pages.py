"""A page for every public module, and one for every public function and class.

Pages are made from `dfj.__all__` when the site is built, so none is missing.
"""

from collections.abc import Mapping
import importlib
import inspect
import pathlib
import types

import diffflow_jax as dfj

GROUPS = {
  "The process": ("schedules", "levels", "targets", "sde", "conditions")
  + ("closed_form", "gaussians", "flow_maps"),
  "The objective": ("objectives", "densities", "weightings", "omegas", "bound"),
  "Sampling": ("grids", "solvers", "guidance", "adaptive", "learned")
  + ("introspection",),
  "The rest": ("networks", "data", "evaluation", "plots", "training"),
}


def public(module):
  """The public names of a module: __all__, or what is defined in it."""
  if hasattr(module, "__all__"):
    names = module.__all__
  else:
    names = [
      name
      for name, value in vars(module).items()
      if not name.startswith("_")
      and not isinstance(value, types.ModuleType)
      and getattr(value, "__module__", module.__name__).startswith(
        module.__name__
      )
    ]
  return [n for n in names if not n.startswith("__")]


def home_of(name):
  return importlib.import_module(f"diffflow_jax.{dfj._MODULES[name]}")


def entry(path, value, first=True):
  """The directive that documents one name; a table is its names."""
  index = [] if first else ["   :no-index:"]
  if inspect.isclass(value):
    return [f".. autoclass:: {path}", "   :members:", *index, ""]
  if callable(value) and hasattr(value, "__name__"):
    return [f".. autofunction:: {path}", *index, ""]
  if isinstance(value, Mapping):
    known = ", ".join(f"``{name}``" for name in value)
    return [f".. data:: {path}", "", f"   By name: {known}.", ""]
  return [f".. autodata:: {path}", "   :no-value:", *index, ""]


def page(title, body):
  return "\n".join([title, "=" * len(title), "", *body, ""])


def module_page(name):
  module = home_of(name)
  body = [f".. automodule:: {module.__name__}", "   :no-members:", ""]
  for member in public(module):
    first = member not in dfj._FUNCTIONS
    path = f"diffflow_jax.{name}.{member}"
    body += entry(path, getattr(module, member), first)
  return page(f"dfj.{name}", body)


def pages():
  """{name of a page: its text}."""
  grouped = [name for names in GROUPS.values() for name in names]
  modules = [n for n in grouped if n in dfj._MODULES]
  rest = sorted(set(dfj._MODULES) - set(modules))
  out = {name: module_page(name) for name in modules + rest}
  functions = []
  for name in dfj._FUNCTIONS:
    functions += entry(f"diffflow_jax.{name}", getattr(dfj, name))
  out["functions"] = page("dfj", functions)
  toc = ["functions", *modules, *rest]
  index = [
    "What is typed is flat: ``import diffflow_jax as dfj``, then these names.",
    "", ".. toctree::", "   :maxdepth: 1", "",
    *(f"   {name}" for name in toc),
  ]  # fmt: skip
  out["index"] = page("Reference", index)
  return out


def write(app):
  folder = pathlib.Path(app.srcdir) / "api"
  folder.mkdir(exist_ok=True)
  for name, text in pages().items():
    path = folder / f"{name}.rst"
    if not path.exists() or path.read_text() != text:
      path.write_text(text)


def setup(app):
  app.connect("builder-inited", write)
  return {"parallel_read_safe": True}
