"""Learned tables of a run: what they were made for, and use for another."""

import json
import logging
import zlib

import jax

from diffflow_jax.runs import generate
from diffflow_jax.sampling import files

log = logging.getLogger("diffflow_jax")


def fingerprint(params):
  """A checksum of all parameters by name, the same on any devices."""
  total = 0
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  for path, leaf in sorted(leaves, key=lambda pair: str(pair[0])):
    total = zlib.crc32(str(path).encode(), total)
    total = zlib.crc32(generate.to_host(leaf).tobytes(), total)
  return total


def about(run, how):
  """What a file says that its tables were made for: `Run` and `Settings`."""
  return {
    "run": run.path,
    "step": run.step,
    "ema": run.ema,
    "guidance": float(how.guidance),
    "parameters": fingerprint(run.params),
  }


def warn_of_another(run, how):
  """Says it where the tables of a file were made for something else."""
  known = files.about(how.solver)
  if known is None:
    return
  ours = about(run, how)
  off = [n for n in ("parameters", "guidance") if known.get(n) != ours[n]]
  if off:
    log.warning(
      "%s was fitted to %s, and here draws from %s: it may be no better than a "
      "hand-made solver",
      how.solver,
      _said(known),
      _said(ours),
    )


def _said(about):
  """A run, its average and guidance in words."""
  width = about.get("ema")
  average = "" if width is None else f", average {json.dumps(width)}"
  return (
    f"step {about.get('step')} of {about.get('run')}{average}, guidance "
    f"{about.get('guidance')}"
  )
