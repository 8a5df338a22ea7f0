"""Shared settings and fixtures of the tests."""

import jax
import pytest

from tests import commands


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
