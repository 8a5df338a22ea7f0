"""What methods have unless they say otherwise."""

SOLVED = ("guidance", "solver", "grid", "num_steps")  # of a whole solution
ASKED = ("guidance",)  # of predictions at single levels


class Kind:
  """A method's defaults; see `methods`."""

  teacher = ()
  alone = False
  counts = (1, 2, 4)
  weighted = True
  pairs = 0
  stages = None

  def on(self, known):
    """The method for a run, of its Recipe."""
    return self
