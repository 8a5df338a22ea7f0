"""Shared settings and fixtures of the tests."""

import collections
import pathlib

import jax
import pytest

from tests import commands


def pytest_terminal_summary(terminalreporter, config):
  """Seconds of the longest files, where those of tests are asked for."""
  if not config.getoption("durations"):
    return
  seconds = collections.Counter()
  for reports in terminalreporter.stats.values():
    for report in reports:
      if hasattr(report, "duration") and hasattr(report, "nodeid"):
        seconds[report.nodeid.split("::")[0]] += report.duration
  terminalreporter.section("slowest files")
  for name, spent in seconds.most_common(40):
    terminalreporter.write_line(f"{spent:8.1f}s {name}")


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
  """Lets go of compiled programs before a process has no room for more.

  XLA maps every kernel into memory of its own, and Linux gives a process 65,530
  mappings; where they end, a worker that ran many files dies in LLVM.
  """
  yield
  maps = pathlib.Path("/proc/self/maps")
  if maps.exists() and maps.read_text().count("\n") > 20_000:
    jax.clear_caches()


@pytest.fixture
def x64():
  """Runs a test in float64, where slopes and 1e-12 equalities are measured."""
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
  """A workdir with a finished digits:smoke run, and what it printed."""
  workdir = tmp_path_factory.mktemp("runs") / "digits"
  done = commands.run(
    "train", "--config=configs/digits.py:smoke", f"--workdir={workdir}"
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return workdir, done.stdout


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
  """A workdir with a finished toy2d:smoke run."""
  workdir = tmp_path_factory.mktemp("runs") / "toy2d"
  done = commands.run(
    "train", "--config=configs/toy2d.py:smoke", f"--workdir={workdir}"
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return workdir
