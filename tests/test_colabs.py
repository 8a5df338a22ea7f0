"""Every notebook runs, from its first cell to its last, without a warning."""

import json
import re
import subprocess
import sys
import warnings

import jax
import pytest

from tests import commands, pages

SOURCES = sorted((commands.ROOT / "colabs").glob("*.py"))
ALL = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
ADDRESS = re.compile(r'^REPOSITORY = "(.*)"$', re.M)


@ALL
def test_a_notebook_is_its_source_and_installs_from_one_address(path):
  jupytext = pytest.importorskip("jupytext")
  source = jupytext.read(path)
  notebook = jupytext.read(path.with_suffix(".ipynb"))
  cells = lambda nb: [(c.cell_type, c.source) for c in nb.cells]
  assert cells(notebook) == cells(source), "jupytext --to ipynb colabs/*.py"
  assert not any(cell.get("outputs") for cell in notebook.cells)
  (address,) = ADDRESS.findall(path.read_text())
  assert f'Repository = "{address}"' in pages.text("pyproject.toml")
  badge = f"{address.split('github.com/')[1]}/blob/main/colabs/{path.stem}"
  assert badge in pages.text("README.md")
  first, last = source.cells[0].source, source.cells[-1].source
  assert "minute" in first and "Yours to change" in last


@ALL
def test_a_notebook_installs_the_library_where_it_is_not(path, monkeypatch):
  cells = json.loads(path.with_suffix(".ipynb").read_text())["cells"]
  install = next(c["source"] for c in cells if c["cell_type"] == "code")
  (address,) = ADDRESS.findall(path.read_text())
  asked = []

  def run(command, check):
    asked.append(command[-1])
    monkeypatch.setitem(sys.modules, "diffflow_jax", "installed")

  monkeypatch.setattr(subprocess, "run", run)
  monkeypatch.setitem(sys.modules, "diffflow_jax", None)  # cannot be imported
  names = {}
  exec("".join(install), names)
  assert names["dfj"] == "installed"
  assert asked == [f"diffflow_jax[ode] @ git+{address}"]


@pytest.mark.slow
@ALL
def test_a_notebook_runs(path, tmp_path, monkeypatch):
  monkeypatch.setenv("DIFFFLOW_SMOKE", "1")
  monkeypatch.setenv("MPLBACKEND", "agg")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
  source = path.read_text()
  if "XLA_FLAGS" in source:
    return _runs_alone(source)
  wide = jax.config.jax_enable_x64
  try:
    with warnings.catch_warnings(), pages.compiled_plainly():
      warnings.simplefilter("error")
      # Agg has no window to show
      warnings.filterwarnings("ignore", message=".*non-interactive")
      exec(compile(source, str(path), "exec"), {"__name__": "__main__"})
  finally:
    jax.config.update("jax_enable_x64", wide)


def _runs_alone(source):
  """In a process of its own: it says what JAX reads when it starts."""
  done = subprocess.run(
    [sys.executable, "-c", source],
    env=commands.environment(
      PYTHONPATH=str(commands.ROOT), JAX_DISABLE_MOST_OPTIMIZATIONS="1"
    ),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert "Warning" not in done.stderr, done.stderr
