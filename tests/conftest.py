"""Shared settings of the tests: float64 where a test asks for it."""

import jax
import pytest


@pytest.fixture
def x64():
  """Runs a test in float64, where slopes and 1e-12 equalities are measured."""
  with jax.enable_x64(True):
    yield
