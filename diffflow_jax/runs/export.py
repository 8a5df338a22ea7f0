"""A run as a small folder to share.

README.md                the model card
params.safetensors       the averaged parameters, with their checksum
config.json, data.json   as the run's own, and conditions.npz where it has one
samples.png              samples with the config's settings
sampler.jaxexport        on request: the whole sampler, for jax alone

`dfj.load` reads it as it reads a run. config.json is written last, and without
it a folder is no run: half an export is never taken for one.
"""

import json
import os
import tempfile

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.runs import (
  card as card_lib,
  conditions_file,
  drawing,
  exported_sampler,
  model_card,
  params_file,
  settings as settings_lib,
)
from diffflow_jax.runs.workdir import CONFIG
from diffflow_jax.store import paths

PICTURE = "samples.png"
README = "README.md"
SAMPLER = "sampler.jaxexport"
PARAMS = params_file.NAME
FILES = (
  README, PARAMS, PICTURE, SAMPLER, card_lib.DATA, conditions_file.NAME, CONFIG,
)  # fmt: skip


def write(run, out, sampler=None):
  """Writes a `Run` to a folder.

  Args:
    out: a path or a URL, of a folder that is new or empty, or that holds half
      an export.
    sampler: None, or an `exported_sampler.Sampler` to write as well.
  Raises:
    Refusal: out holds something else, or cannot be written to.
    Failure: it cannot be written to the end.
  """
  params = params_file.pack(run.params, run.step)
  place = _claim(out, run.say("out"))
  samples, labels, _ = run.draw()
  with tempfile.TemporaryDirectory() as scratch:
    local = os.path.join(scratch, PICTURE)
    run.save_picture(local, samples, labels, run.cond(len(samples)))
    with open(local, "rb") as file:
      picture = file.read()
  files = {PARAMS: params, PICTURE: picture}
  if sampler is not None:
    files[SAMPLER] = sampler.serialized()
  text = model_card.text(run, os.path.basename(place), params, sampler)
  files[README] = text.encode()
  files[card_lib.DATA] = run.card.to_json().encode()
  if conditions_file.is_needed(run.card.conditions):
    files[conditions_file.NAME] = conditions_file.pack(run.examples)
  config = json.loads(run.config.to_json())
  files[CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
  try:
    for name, content in files.items():
      paths.write(paths.join(place, name), content)
  except OSError as error:
    raise Failure(
      f"{place} cannot be written: {paths.reason(error)}"
    ) from error


def sampler(run, batch, settings):
  """The `exported_sampler.Sampler` of a `Run`; None where batch is None.

  Raises:
    Refusal: settings without a batch, or that cannot work.
  """
  settings = {k: v for k, v in settings.items() if v is not None}
  if batch is None and settings:
    raise Refusal(
      f"{run.say(min(settings))} needs {run.say('batch')}, the number of "
      "samples that one call of the exported sampler draws"
    )
  if batch is None:
    return None
  settings_lib.integer(batch, run.say("batch"), 1)
  how = settings_lib.settle(run, settings)
  tableau = drawing.tableau(run, how)
  exported_sampler.check(tableau, run.say("solver"))
  predict = drawing.predict(run, how)
  return exported_sampler.Sampler(run.recipe, predict, tableau, how, batch)


def _claim(out, name):
  """The folder to write to, made if it is not there."""
  if not isinstance(out, str | os.PathLike) or not os.fspath(out):
    said = settings_lib.said(out)
    raise Refusal(f"{name} must be a path or a URL of a folder, not {said}")
  place = os.fspath(out).rstrip("/")
  try:
    if not paths.is_remote(place):
      place = os.path.abspath(os.path.expanduser(place))
      if os.path.isfile(place):
        raise Refusal(f"{name}: {place} is a file, and an export is a folder")
      os.makedirs(place, exist_ok=True)
    inside = paths.names(place)
    if CONFIG in inside:
      raise Refusal(f"{name}: {place} holds a run or an export already")
    other = [n for n in inside if n.removesuffix(".partial") not in FILES]
    if other:
      raise Refusal(f"{name}: {place} holds other files, as {other[0]}")
    paths.write(paths.join(place, README), "An export that is not finished.\n")
  except OSError as error:
    raise Refusal(f"{name}: {place}: {paths.reason(error)}") from error
  return place
