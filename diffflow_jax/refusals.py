"""How a command ends where it cannot do what was asked."""


class _OneLine(Exception):
  """A message on one line, whatever it quotes: arrays and configs have more."""

  def __init__(self, message=""):
    super().__init__(" ".join(str(message).split()))


class Refusal(_OneLine):
  """What the user asked for cannot be done; the message says why."""


class Failure(_OneLine):
  """The work went wrong on its way; the message says where."""
