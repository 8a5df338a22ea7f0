"""The README's code runs, as it is printed."""

import re

import numpy as np
import pytest

from diffflow_jax import evaluation
from tests import commands

TEXT = (commands.ROOT / "README.md").read_text()
EXAMPLE = re.search(r"```python\n(.*?)```", TEXT, re.S).group(1)


def test_the_example_is_short_and_early():
  lines = [l for l in EXAMPLE.splitlines() if l and not l.startswith("import")]
  names = set(re.findall(r"dfj\.(?:\w+\.)?(\w+)", EXAMPLE))
  assert len(lines) <= 15, len(lines)
  assert len(names) <= 7, names
  assert TEXT[: TEXT.index("```python")].count("\n") < 40


@pytest.mark.slow
def test_the_example_learns_the_moons():
  scope = {}
  exec(EXAMPLE, scope)
  samples, x = np.asarray(scope["samples"]), np.asarray(scope["x"])
  assert samples.shape == (1000, 2)
  near = evaluation.nearest_distances(samples, x)
  assert np.quantile(near, 0.95) < 0.15, np.quantile(near, 0.95)
  assert evaluation.frechet_distance(samples, x) < 0.01


def test_the_part_on_samplers_runs(tmp_path, monkeypatch):
  part = TEXT[TEXT.index("## Samplers") : TEXT.index("## Add your own")]
  blocks = re.findall(r"```python\n(.*?)```", part, re.S)
  assert len(blocks) == 4
  monkeypatch.chdir(tmp_path)
  scope = {}
  for block in blocks:
    exec(block, scope)
  assert np.isfinite(scope["x"]).all() and scope["x"].shape == (1000, 2)
