"""The house: a floor imports only from the floors above it."""

import ast
import pathlib

import pytest

from tests import commands

PACKAGE = commands.ROOT / "diffflow_jax"
# from the top; what stands beside another may not import it either
FLOORS = (
  {"cli", "config_files"},
  {"paths"},
  {"process", "store"},
  {"objective", "sampling"},
  {"networks", "data"},
  {"evaluation"},
  {"plots", "explorer"},
  {"runs"},
  {"scoring"},
  {"training"},
  {"commands"},
)
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def imported(path):
  """The floors that a module names in any of its imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}: a relative import"
      parts = node.module.split(".")
      if parts[0] == "diffflow_jax":
        yield from parts[1:2] or [alias.name for alias in node.names]
    elif isinstance(node, ast.Import):
      for alias in node.names:
        parts = alias.name.split(".")
        if parts[0] == "diffflow_jax":
          yield from parts[1:2]


@pytest.mark.parametrize(
  "path", sorted(PACKAGE.glob("*/**/*.py")), ids=lambda p: p.stem
)
def test_no_module_imports_upwards(path):
  here = path.relative_to(PACKAGE).parts[0]
  for name in imported(path):
    assert name == here or FLOOR[name] < FLOOR[here], f"{path}: {name}"


def test_every_folder_has_its_floor():
  folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
  assert folders <= set(FLOOR)


@pytest.mark.parametrize(
  "folder, most",
  [
    ("evaluation", 15),
    ("evaluation/pairwise", 15),
    ("scoring", 15),
    ("training", 15),
    ("sampling", 15),  # what runs, composes and learns tables
    ("sampling/solvers", 15),  # what makes them
    ("sampling/guidance", 15),  # what wraps a predictor
  ],
)
def test_a_folder_stays_small(folder, most):
  rooms = [p for p in (PACKAGE / folder).glob("*.py") if p.stem != "__init__"]
  assert 0 < len(rooms) <= most


def test_imports_are_seen():
  assert set(imported(pathlib.Path(__file__))) == set()
  assert "process" in set(imported(PACKAGE / "runs" / "recipe.py"))
