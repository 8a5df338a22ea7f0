"""The index of formulas names tests that exist, and leaves no number out."""

import ast
import pathlib
import re

from tests import math_index

HERE = pathlib.Path(__file__).parent
COUNTS = {"1": 19, "2": 6, "3": 12, "4": 6, "6": 3, "8": 33, "9": 6}


def _tests(module):
  """{name: source} of a module's tests."""
  text = (HERE / f"{module}.py").read_text()
  return {
    node.name: ast.get_source_segment(text, node)
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
  }


def _covers(source, number):
  """Whether a test says the number, alone or inside "1.2 to 1.17"."""
  if re.search(rf"(?<![0-9.]){re.escape(number)}(?![0-9]|[.][0-9])", source):
    return True
  as_pair = lambda text: tuple(int(part) for part in text.split("."))
  spans = re.findall(r"([0-9]+[.][0-9]+) to ([0-9]+[.][0-9]+)", source)
  return number[-1].isdigit() and any(
    as_pair(low) <= as_pair(number) <= as_pair(high) for low, high in spans
  )


def test_every_named_test_exists_and_carries_its_number():
  known, silent = {}, []
  for number, where in (math_index.INDEX | math_index.NOTES).items():
    if isinstance(where, str):
      assert len(where) > 20, number  # a reason
      continue
    sources = []
    for entry in where:
      module, test = entry.split("::")
      if module not in known:
        known[module] = _tests(module)
      assert test in known[module], f"{number}: no {entry}"
      sources.append(known[module][test])
    if not any(_covers(source, number) for source in sources):
      silent.append(number)
  assert not silent


def test_no_note_is_missing():
  assert set(math_index.NOTES) == {
    "1.5b", "1.8b", "1.9b", "1.10b", "1.13b", "1.14b", "1.16b"
  }  # fmt: skip


def test_no_number_is_missing():
  for section, count in COUNTS.items():
    for i in range(1, count + 1):
      assert f"{section}.{i}" in math_index.INDEX
