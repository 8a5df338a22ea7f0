"""The code of the README and of the guides runs, as it is printed."""

import re

import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import evaluation
from tests import commands, pages, runs

TEXT = pages.text("README.md")
EXAMPLE = pages.blocks("README.md")[0]
DATA = "docs/guides/data.md"


def test_the_example_is_short_and_early():
  lines = [l for l in EXAMPLE.splitlines() if l and not l.startswith("import")]
  names = set(re.findall(r"dfj\.(?:\w+\.)?(\w+)", EXAMPLE))
  assert len(lines) <= 15, len(lines)
  assert len(names) <= 7, names
  assert TEXT[: TEXT.index("```python")].count("\n") < 40


def test_a_run_is_loaded_as_the_first_screen_says(tmp_path, monkeypatch):
  block = re.search(r"```py\n(.*?)```", TEXT, re.S).group(1)
  assert TEXT[: TEXT.index(block)].count("\n") < 30
  assert len(block.strip().splitlines()) <= 4
  runs.untrained(tmp_path / "runs" / "digits")
  monkeypatch.chdir(tmp_path)
  scope = {"dfj": dfj}
  exec(block, scope)
  assert scope["samples"].shape == (64, 2)
  assert (tmp_path / "digits.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_example_learns_the_moons():
  scope = {}
  exec(EXAMPLE, scope)
  samples, x = np.asarray(scope["samples"]), np.asarray(scope["x"])
  assert samples.shape == (1000, 2)
  near = evaluation.nearest_distances(samples, x)
  assert np.quantile(near, 0.95) < 0.15, np.quantile(near, 0.95)
  assert evaluation.frechet_distance(samples, x) < 0.01


@pytest.mark.slow
def test_a_dataset_and_a_network_of_ones_own_train_and_sample(tmp_path):
  code = pages.blocks(DATA)[0]
  for definition in re.split(r"\n\n\n", code)[1:]:
    lines = [l for l in definition.splitlines() if l.strip()]
    assert len(lines) <= 10, definition
  (tmp_path / "mine.py").write_text(code)
  command = pages.blocks(DATA, "bash")[-1]
  flags = command.replace("\\\n", " ").split()[3:]
  flags = [f.replace("runs/stripes", str(tmp_path / "run")) for f in flags]
  short = ("num_steps", "sample_every", "log_every", "checkpoint_every")
  path = {"PYTHONPATH": str(tmp_path)}
  done = commands.run(
    "train", *flags, *(f"--config.{name}=60" for name in short), **path
  )
  assert done.returncode == 0, done.stderr
  out = tmp_path / "s.npz"
  done = commands.run(
    "sample", f"--workdir={tmp_path / 'run'}", f"--out={out}", **path
  )
  assert done.returncode == 0, done.stderr
  assert np.load(out)["samples"].shape == (100, 8, 8, 1)


@pytest.mark.parametrize(
  "page", ["samplers", "evaluation", "how_to", "coming_from"]
)
def test_the_code_of_a_guide_runs(page, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  scope = {}
  with pages.compiled_plainly():
    for block in pages.blocks(f"docs/guides/{page}.md"):
      exec(block, scope)
  assert np.isfinite(scope["x"]).all() and scope["x"].shape == (1000, 2)


def test_a_first_visitor_reads_a_short_page():
  assert TEXT.count("\n") < 200
  for path in re.findall(r"\]\(((?!https?:)[^)#]+)", TEXT):
    assert (commands.ROOT / path).exists(), path
