"""The house: a floor imports only from the floors above it."""

import ast
import pathlib

import pytest

from tests import commands

PACKAGE = commands.ROOT / "diffflow_jax"
# from the top; what stands beside another may not import it either
FLOORS = (
  {"cli"},
  {"paths"},
  {"process", "store"},
  {"objective", "sampling"},
  {"networks", "data"},
  {"evaluation"},
  {"plots"},
  {"runs"},
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


def test_every_folder_has_its_floor_and_training_stays_small():
  folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
  assert folders <= set(FLOOR)
  rooms = [p for p in (PACKAGE / "training").glob("*.py")]
  assert len([p for p in rooms if p.stem != "__init__"]) <= 14


def test_imports_are_seen():
  assert set(imported(pathlib.Path(__file__))) == set()
  assert "process" in set(imported(PACKAGE / "runs" / "recipe.py"))
