"""The site has a page for every public name."""

import importlib.util
import pathlib
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
    "Args:",
    "  key: a PRNG key",
    "  x: clean ``data``.",
  ]


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
