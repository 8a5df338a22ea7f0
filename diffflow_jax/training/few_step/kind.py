"""What methods have unless they say otherwise."""

from diffflow_jax.process import ranges

SOLVED = ("guidance", "solver", "grid", "num_steps")  # of a whole solution
ASKED = ("guidance",)  # of predictions at single levels


class Kind:
  """A method's defaults; see `methods`."""

  teacher = None
  alone = False
  strengths = None
  counts = (1, 2, 4)
  weighted = True
  pairs = 0
  stages = None

  def on(self, known):
    """The method for a run, of its Recipe."""
    return self


def checked_strengths(strengths):
  """(low, high) as floats, or None.

  Raises:
    ValueError: they are no two numbers with 0 < low < high.
  """
  if strengths is None:
    return None
  if not isinstance(strengths, (tuple, list)) or len(strengths) != 2:
    raise ValueError(f"strengths must be (low, high), not {strengths!r}")
  low, high = strengths
  ranges.check("the first of strengths", low, "> 0")
  ranges.check("the second of strengths", high, "> low", {"low": low})
  return float(low), float(high)
