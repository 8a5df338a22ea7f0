"""What a run left in its workdir, and runs that nobody trained."""

import json

import jax
import ml_collections
import numpy as np

from diffflow_jax import data
from diffflow_jax.runs import card as card_lib, recipe
from diffflow_jax.store import checkpoints, soundness, storage
from diffflow_jax.training import metrics

CLOCK = (
  "steps_per_second",
  "examples_per_second",
  "flops_per_second",
  "input_wait",
  "eval/seconds",
  "eval/share",
)


def final_arrays(workdir, step):
  """Every array of the checkpoint of a step, by name."""
  path = workdir / "checkpoints" / str(step)
  stored = {p.parent.name for p in path.glob("*/_METADATA")}
  like = {
    name: storage.shapes(path / name)[name]
    for name in stored - {soundness.DIGEST}
  }
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
  with checkpoints.Checkpoints(workdir / "checkpoints", read_only=True) as c:
    found, items = c.restore(like, step)
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


def labelled():
  """Points in the plane of three classes."""
  x = np.random.default_rng(0).normal(size=(96, 2)).astype(np.float32)
  return data.Arrays(x, np.arange(96) % 3)


def untrained(
  workdir, num_classes=3, width=8, steps=(3, 6), shape=(2,), **changes
):
  """A run of a small MLP on points in the plane, with random parameters.

  Args:
    steps: of its checkpoints; shape: of an example, which another network may
      need; changes: top-level fields of its config.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  config = ml_collections.ConfigDict(
    dict(
      seed=0,
      num_steps=6,
      batch_size=4,
      dataset=dict(name="nowhere:to_be_found"),
      objective=dict(name="flow_matching"),
      network=dict(name="mlp", width=width, depth=1),
      optimizer=dict(name="adam"),
      learning_rate=dict(name="constant_schedule", value=1e-3),
      ema=dict(name="exponential", decay=0.9),
      label_dropout=0.1,
      sampler=dict(
        solver="ddim",
        grid="uniform_t",
        num_steps=3,
        guidance=1.0,
        num_samples=6,
      ),
    )
  )
  if "network" in changes:  # another one, not ours with other settings
    del config["network"]
  config.update(changes)
  text = json.dumps(json.loads(config.to_json()))
  (workdir / "config.json").write_text(text)
  card = card_lib.Card(shape, num_classes)
  (workdir / "data.json").write_text(card.to_json())
  known = recipe.resolve(config, card)
  like = jax.eval_shape(
    lambda: recipe.init(known.objective, known.network, card, 0)
  )
  with checkpoints.Checkpoints(workdir / "checkpoints") as saved:
    for step in steps:
      rng = np.random.default_rng(step)
      normal = lambda x, rng=rng: rng.normal(0, 0.3, x.shape).astype(x.dtype)
      saved.save(step, {"ema": (jax.tree.map(normal, like),)})
  return workdir
