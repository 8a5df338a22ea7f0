"""The code that the README and the guides show."""

import contextlib
import re

import jax

from tests import commands


def text(name):
  return (commands.ROOT / name).read_text()


def blocks(name, language="python"):
  """The blocks of one language, in order."""
  return re.findall(rf"```{language}\n(.*?)```", text(name), re.S)


@contextlib.contextmanager
def compiled_plainly():
  """Compiles without optimising: of code that runs once, most of the time."""
  jax.config.update("jax_disable_most_optimizations", True)
  try:
    yield
  finally:
    jax.config.update("jax_disable_most_optimizations", False)
