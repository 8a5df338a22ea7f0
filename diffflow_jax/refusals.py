"""How a command ends where it cannot do what was asked."""


class Refusal(Exception):
  """What the user asked for cannot be done; the message says why."""


class Failure(Exception):
  """The work went wrong on its way; the message says where."""
