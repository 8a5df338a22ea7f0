"""The rule by which the benchmark of solvers chooses."""

import importlib.util

import numpy as np

from diffflow_jax.objective import objectives
from diffflow_jax.runs import samplers
from diffflow_jax.sampling import solvers
from tests import commands


def _benchmark():
  path = commands.ROOT / "benchmarks" / "advice.py"
  spec = importlib.util.spec_from_file_location("advice", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_least_worst_ratio_is_chosen_and_judged_on_what_was_left_out():
  """a is best on the first two problems, c on none and never far off."""
  both = lambda a, b, c: {5: {"a|flow": a, "b|flow": b, "c|flow": c}}
  errors = {
    "one": both([1.0, 1.0], [9.0, 9.0], [2.0, 3.0]),
    "two": both([2.0, 2.0], [8.0, 8.0], [4.0, 2.0]),
    "three": both([7.0, 7.0], [1.0, 1.0], [2.0, 2.0]),
  }
  advice = _benchmark().advise(errors, (5,))[5]
  assert (advice["solver"], advice["grid"]) == ("c", "uniform_flow")
  assert advice["worst_ratio"] == 3.0
  out = advice["left_out"]
  assert out["three"] == dict(pair="a|flow", median=7.0, rms=7.0)
  assert out["two"] == dict(pair="c|flow", median=2.0, rms=1.0)


def test_errors_below_the_floor_are_equal():
  module = _benchmark()
  tiny = {"a|flow": [1e-9, 1e-9], "b|flow": [1e-6, 1e-7]}
  ratio = module.ratios({"one": {5: tiny}}, 5)[2]
  np.testing.assert_array_equal(ratio, 1.0)


def test_its_pool_is_known_to_sample():
  flow = objectives.flow_matching()
  grid = samplers.call(
    "grid", "uniform_flow:power=1.5", samplers.GRIDS, flow, 4
  )
  for spec in _benchmark().POOL:
    samplers.call("solver", spec, solvers.SOLVERS, grid)
