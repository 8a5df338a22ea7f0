"""What a run left in its workdir."""

import jax
import numpy as np

from diffflow_jax.runs import checkpoints, storage
from diffflow_jax.training import metrics

CLOCK = (
  "steps_per_second",
  "examples_per_second",
  "flops_per_second",
  "input_wait",
)


def final_arrays(workdir, step):
  """Every array of the last checkpoint, by name."""
  path = workdir / "checkpoints" / str(step)
  stored = {p.parent.name for p in path.glob("*/_METADATA")}
  like = {
    name: storage.shapes(path / name)[name]
    for name in stored - {checkpoints.DIGEST}
  }
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
  with checkpoints.Checkpoints(workdir / "checkpoints", read_only=True) as c:
    found, items = c.restore(like)
  assert found == step
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(items)
  }


def curve(workdir):
  """The metrics lines, without what depends on the clock."""
  lines = metrics.read(workdir)
  return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


def steps(workdir):
  """Steps of the finished checkpoints."""
  names = [path.name for path in (workdir / "checkpoints").glob("[0-9]*")]
  return sorted(int(name) for name in names if name.isdigit())
