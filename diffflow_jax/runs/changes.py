"""What of a run's config may change between its starts.

How long it is, how it is watched and where it runs: with any of these it takes
the same steps. How often conditions are dropped, too: the steps that are to
come are then others, and config_history.jsonl says from where on. Another
batch, network or learning rate would be another run, which can start from this
one's parameters (`runs.transfer`).
"""

from diffflow_jax.cli import Refusal

MAY_CHANGE = (
  "num_steps", "mesh", "log_every", "sample_every", "checkpoint_every", "keep",
  "sampler", "evaluate", "label_dropout", "drop_all",
)  # fmt: skip
SHOWN = 3  # of the fields that are refused


def between(workdir, before, now):
  """{field: [before, now]} of two configs, given flat: {"mesh.fsdp": 1, …}.

  Raises:
    Refusal: one of them may not change, or the learning rate depends on
      num_steps, so that the steps behind the run would have been others.
  """
  changed = {
    field: [before.get(field), now.get(field)]
    for field in sorted(before.keys() | now.keys())
    if before.get(field) != now.get(field)
  }
  refused = {
    field: values for field, values in changed.items() if not _may_change(field)
  }
  if refused:
    rated = all(field.startswith("learning_rate.") for field in refused)
    if "num_steps" in changed and rated and "learning_rate.name" not in refused:
      raise Refusal(_another_past(workdir, changed["num_steps"], refused))
    raise Refusal(
      f"{workdir} holds a run with {_differences(refused)}: only "
      f"{', '.join(MAY_CHANGE[:-1])} and {MAY_CHANGE[-1]} may change between "
      f"starts; take another --workdir, with --init_from={workdir} to start "
      "from this run's parameters"
    )
  return changed


def _may_change(field):
  section, *path = field.split(".")
  drops = section == "conditions" and path[1:] == ["dropout"]
  # which teacher it is, teacher.json says; it may have been moved
  return section in MAY_CHANGE or drops or field == "teacher.run"


def _differences(refused):
  shown = [
    f"config.{field} = {before!r}, not {now!r}"
    for field, (before, now) in list(refused.items())[:SHOWN]
  ]
  rest = len(refused) - len(shown)
  return "; ".join(shown) + (f"; and {rest} more" if rest else "")


def _another_past(workdir, num_steps, refused):
  """Why a run whose rate is made for its length cannot be made longer."""
  before, now = num_steps
  kept = " ".join(
    f"--config.{name}={old}" for name, (old, _) in refused.items()
  )
  return (
    f"{workdir} cannot go from config.num_steps = {before} to {now}: its "
    f"learning rate follows num_steps ({_differences(refused)}), so that the "
    f"steps behind it would have been others; {kept} keeps the rate, which "
    "then stays where it ended, and --init_from="
    f"{workdir} with another --workdir starts a new run from this one"
  )


def check_reached(workdir, num_steps, step):
  """Refuses a length that a run is past."""
  if step > num_steps:
    raise Refusal(
      f"{workdir} has reached step {step}: config.num_steps must be at least "
      f"that, not {num_steps}"
    )


def line(changed):
  """All that changed, in one line."""
  parts = (f"config.{f} {old} -> {new}" for f, (old, new) in changed.items())
  return f"changed since the last start: {', '.join(parts)}"
