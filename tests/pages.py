"""The code that the README and the guides show."""

import re

from tests import commands


def text(name):
  return (commands.ROOT / name).read_text()


def blocks(name, language="python"):
  """The blocks of one language, in order."""
  return re.findall(rf"```{language}\n(.*?)```", text(name), re.S)
