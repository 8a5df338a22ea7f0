"""The site has a page for every public name."""

import importlib.util
import inspect
import itertools
import pathlib
import re
import sys

import pytest

import diffflow_jax as dfj
from tests import commands

EXTENSIONS = commands.ROOT / "docs" / "_ext"


def extension(name):
  spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_every_public_name_is_on_a_page():
  made = extension("api_pages").pages()
  for name in dfj._FUNCTIONS:
    assert f":: diffflow_jax.{name}\n" in made["functions"], name
  for name in dfj._MODULES:
    home = getattr(dfj, name)
    assert name in made["index"]
    for member in getattr(home, "__all__", ()):
      assert f":: diffflow_jax.{name}.{member}\n" in made[name], member
  assert "diffflow_jax.schedules.Cosine\n" in made["schedules"]


def test_a_docstring_becomes_its_markup():
  ours = [
    "Draws |x| of `Thing`s, a*b.",
    "",
    "    y = a_ * x",
    "",
    "Equation (a_b) of docs/math.",
    "",
    "Args:",
    "  key: a PRNG key; x: clean `data`.",
  ]
  assert extension("docstrings").to_rst(ours) == [
    r"Draws \|x\| of ``Thing``\ s, a\*b.",
    "",
    ".. code-block:: none",
    "",
    "    y = a_ * x",
    "",
    "Equation :eq:`a_b`.",
    "",
    "Args:",
    "  key: a PRNG key",
    "  x: clean ``data``.",
  ]


# what has an "=" or an indented block, and no formula of its own
NO_FORMULA = {
  "make",
  "check",
  "compare",
  "named",
  "schedule",
  "to_data",
  "unit_pair",
  "predictor_of",
}


def modules_within(module):
  """A public module, and those that it has public names for."""
  inner = (getattr(module, n) for n in extension("api_pages").public(module))
  return [module, *filter(inspect.ismodule, inner)]


def public_values():
  """What can be called of process, objective and sampling, and by `dfj.`."""
  api = extension("api_pages")
  groups = "The process", "The objective", "Sampling"
  homes = [dfj.__getattr__(home) for g in groups for home in api.GROUPS[g]]
  found = {name: getattr(dfj, name) for name in dfj._FUNCTIONS}
  for module in itertools.chain(*map(modules_within, homes)):
    for name in api.public(module):
      if callable(value := getattr(module, name)):
        found[f"{module.__name__}.{name}"] = value
  return found


def test_formulas_cite_the_equations_of_the_site():
  pages = (commands.ROOT / "docs" / "math").glob("*.md")
  known = set(
    re.findall(r"\$\$ \((\w+)\)", "".join(map(pathlib.Path.read_text, pages)))
  )
  cited, silent = set(), []
  for name, value in public_values().items():
    text = inspect.getdoc(value) or ""
    labels = re.findall(r"Equation \((\w+)\) of docs/math", text)
    assert set(labels) <= known, (name, labels)
    cited |= set(labels)
    ours = value.__module__.split(".")[1:]
    if ours[0] not in ("process", "objective", "sampling"):
      continue
    if getattr(value, "__name__", name) in NO_FORMULA:
      continue
    said = re.split(r"\n(?:Args|Returns|Raises|Attributes):", text)[0]
    # a solver is a formula, whether or not it is said in signs
    solver = ours[:2] == ["sampling", "solvers"]
    if solver or re.search(r" = |∝|\n\n    ", said):
      silent += [] if labels else [name]
  assert not silent, "say 'Equation (…) of docs/math' in their docstrings"
  assert len(cited) > 80, len(cited)


@pytest.mark.parametrize("name", ["CITATION.cff", "CHANGELOG.md"])
def test_the_version_is_one(name):
  assert dfj.__version__ in pathlib.Path(commands.ROOT, name).read_text()


def test_no_page_is_left_out_of_the_tables_of_contents():
  docs = commands.ROOT / "docs"
  index = (docs / "index.md").read_text()
  math = (docs / "math" / "index.md").read_text()
  for path in docs.glob("*/*.md"):
    name = str(path.relative_to(docs).with_suffix(""))
    if name.split("/")[0] in ("results", "notebooks", "api"):
      continue  # made when the site is
    page = name.removeprefix("math/")
    assert f"\n{name}\n" in index or f"\n{page}\n" in math, name
  assert sys.modules.get("sphinx") is None
