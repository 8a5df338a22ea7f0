"""The index of formulas names tests that exist, and leaves no number out."""

import ast
import pathlib

from tests import math_index

HERE = pathlib.Path(__file__).parent
COUNTS = {"1": 19, "2": 6, "3": 12, "4": 6, "6": 3, "9": 6}


def _tests(module):
  tree = ast.parse((HERE / f"{module}.py").read_text())
  names = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
  return {name for name in names if name.startswith("test_")}


def test_every_named_test_exists():
  known = {}
  for number, where in (math_index.INDEX | math_index.NOTES).items():
    if isinstance(where, str):
      assert len(where) > 20, number  # a reason
      continue
    for entry in where:
      module, test = entry.split("::")
      if module not in known:
        known[module] = _tests(module)
      assert test in known[module], f"{number}: no {entry}"


def test_no_number_is_missing():
  for section, count in COUNTS.items():
    for i in range(1, count + 1):
      assert f"{section}.{i}" in math_index.INDEX
