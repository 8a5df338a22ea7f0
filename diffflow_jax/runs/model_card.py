"""The README.md of an export: what the model is, and how it is used."""

import inspect

import jax
import numpy as np

from diffflow_jax.objective.densities import Adaptive
from diffflow_jax.process import conditions
from diffflow_jax.runs import conditioning, params_file, settings
from diffflow_jax.store import history

_HEAD = """\
---
license: # yours to choose
library_name: diffflow_jax
tags: [diffusion, flow-matching, jax]
---
# {name}

{words}

![Samples](samples.png)

## Use

```python
import diffflow_jax as dfj
samples = dfj.load("{name}").sample(64)
```

```bash
python -m diffflow_jax.sample --workdir={name} --out=samples.png
```

## Recipe

{recipe}

## Numbers

{numbers}
"""

_SAMPLER = """
## Without this library

`sampler.jaxexport` draws {batch} samples a call{labels}, with nothing
but jax and flatbuffers installed: {how}.

```python
import jax, numpy as np
from jax import export
with open("sampler.jaxexport", "rb") as file:
  sampler = export.deserialize(bytearray(file.read()))
samples = sampler.call({call})
```
"""


def text(run, name, params, sampler=None):
  """The card as Markdown.

  Args:
    run: a `Run`; name: of the folder; params: bytes of its safetensors file.
    sampler: None, or the `exported_sampler.Sampler` beside it.
  """
  card = _HEAD.format(
    name=name,
    words=_words(run.config.objective),
    recipe=_table(_recipe(run)),
    numbers=_table(_numbers(run, params)),
  )
  return card if sampler is None else card + _of_sampler(sampler)


def _words(spec):
  """The recipe's own sentences, or its name."""
  from diffflow_jax.objective.objectives import OBJECTIVES

  made = OBJECTIVES.get(spec.name)
  if made is None:
    return spec.name
  return inspect.getdoc(made).replace("\n\n", "\n").replace("\n", " ")


def _spec(value):
  """A config's section as name(setting=value, …), anything else as it is."""
  if not hasattr(value, "items"):
    return f"{value}"
  settings = {k: _spec(v) for k, v in value.items() if k != "name"}
  inside = ", ".join(f"{k}={v}" for k, v in settings.items())
  name = value.get("name", "")
  return f"{name}({inside})" if inside else name


def _recipe(run):
  """(what, how) of the recipe."""
  config, card = run.config, run.card
  rates, together = conditioning.rates(config, card.conditions)
  yield "objective", _spec(config.objective)
  yield "noise levels", _levels(run.objective.density)
  count = sum(leaf.size for leaf in jax.tree.leaves(run.params))
  yield "network", f"{_spec(config.network)}: {count:,} parameters"
  yield "data", f"{_spec(config.dataset)}, examples of shape {card.shape}"
  if card.found:
    yield "data, looked at", card.found["summary"]
    for warning in card.found["warnings"]:
      yield "data, odd", warning
  if card.num_classes:
    names = ", ".join(map(str, card.class_names))
    yield "classes", f"{card.num_classes}{names and f': {names}'}"
    yield "label dropout", f"{rates[conditions.LABEL]:g}"
  for condition, one in card.conditions.items():
    if condition != conditions.LABEL:
      rate = f", dropout {rates.get(condition, 0.0):g}"
      yield f"told: {condition}", f"{one.kind} {one.shape}{rate}"
  if together:
    yield "dropout of all that is told", f"{together:g}"
  yield "optimiser", _spec(config.optimizer)
  yield "learning rate", _spec(config.learning_rate)
  yield "steps", f"{config.num_steps} of {config.batch_size} examples"
  width = "" if run.ema is None else f", rebuilt at width {run.ema:g}"
  yield "average", f"{_spec(config.ema)}{width}, at step {run.step}"
  yield "sampler", _drawn(config.sampler)


def _drawn(how):
  """A config's sampler, or `Settings`, in words."""
  words = how.solver
  if how.solver == "auto":  # which brings its grid
    words += f", {how.num_steps} evaluations"
  elif how.solver.endswith(".npz"):  # which does, too
    if how.num_steps is not None:
      words += f", {how.num_steps} evaluations"
  else:
    words += f" on {how.grid}, {how.num_steps} steps"
  words += f", guidance {how.guidance:g}"
  for name, default in settings.DEFAULTS.items():
    value = getattr(how, name, default)
    if value != default:
      words += f", {name} {value}"
  return words


def _levels(density):
  """How training drew the log-SNR, by its quartiles."""
  if isinstance(density, Adaptive):
    return "as the loss asked for"
  u = np.array([0.25, 0.5, 0.75])
  low, middle, high = np.sort(np.asarray(density.logsnr(u)))
  return (
    f"half of those drawn have log-SNR {low:.2f} to {high:.2f}, their median "
    f"is {middle:.2f}"
  )


def _numbers(run, params):
  """(what, value): the last metrics up to the exported step, the checksum."""
  last = {}
  for line in history.read(run.path):
    if line["step"] <= run.step:
      last |= {k: (v, line["step"]) for k, v in line.items()}
  for name, (value, step) in last.items():
    if name == "loss" or name.startswith("held_out/"):
      yield name, f"{value:.4g} (step {step})"
  size = len(params) / 2**20
  yield "`params.safetensors`", f"{size:.2f} MiB"
  yield "sha256 of the arrays", f"`{params_file.about(params)['sha256']}`"


def _table(rows):
  lines = [f"| {what} | {how} |".replace("\n", " ") for what, how in rows]
  return "\n".join(["| | |", "|---|---|", *lines])


def _of_sampler(sampler):
  card, batch = sampler.recipe.card, sampler.batch
  labels = f"np.arange({batch}, dtype=np.int32) % {card.num_classes}"
  under = f" of labels 0 to {card.num_classes - 1}" if card.num_classes else ""
  told = [labels] if card.num_classes else []
  if card.conditions and not conditions.is_label_only(card.conditions):
    under = (
      f" under {', '.join(conditions.asked(card.conditions))} (where a mask is "
      "False, or a label is -1, it is not said)"
    )
    told = [_dict_of_arrays(sampler.told()[0])]
  return _SAMPLER.format(
    batch=batch,
    how=_drawn(sampler.how),
    labels=under,
    call=", ".join(["jax.random.PRNGKey(0)", *told]),
  )


def _dict_of_arrays(arrays):
  """Python for a dict of such arrays: zeros, and masks by which all is said."""
  inside = ", ".join(
    f'"{name}": np.ones({a.shape}, bool)'
    if a.dtype == bool
    else f'"{name}": np.zeros({a.shape}, np.{a.dtype.name})'
    for name, a in arrays.items()
  )
  return f"{{{inside}}}"
