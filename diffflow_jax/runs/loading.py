"""From a folder to a `Run`: no training data, no optimiser."""

import os

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import params_file, restore, settings as settings_lib
from diffflow_jax.runs.run import Run
from diffflow_jax.runs.workdir import CONFIG
from diffflow_jax.store import compile_cache, paths


def load(path, *, step=None, ema=None):
  """The trained run in a folder, as a `Run`.

      run = dfj.load("runs/digits")
      run.save_picture("digits.png", run.sample(64), run.labels(64))

  Args:
    path: the workdir of a run, or a folder that `export` wrote; may be a URL,
      as gs://bucket/run.
    step: None for the newest whole checkpoint, or that of another one.
    ema: None for the average that the config names first, or the relative width
      of another one, which is rebuilt from the run's snapshots.

  Compiled programs are kept in the workdir from then on, as training keeps
  them, unless JAX was given another place.

  Raises:
    Refusal: there is no such run, checkpoint or average; it is damaged; or this
      version of the library does not know what its config names.
  """
  run = opened(path, step, ema)
  run.params  # noqa: B018  # what cannot be read is refused here
  return run


def opened(path, step=None, ema=None, say=str):
  """A Run whose parameters are read when they are first needed.

  Args:
    say: name of a setting -> what messages call it.
  """
  path = _folder(path)
  if step is not None:
    settings_lib.integer(step, say("step"), 0)
  if ema is not None:
    settings_lib.number(ema, say("ema"), "a number > 0", lambda v: v > 0)
  recipe = restore.load_recipe(path)
  exported = params_file.is_in(path)
  if exported and ema is not None:
    raise Refusal(f"{say('ema')}: {path} is an export, of one average")

  def read():
    if exported:
      return params_file.read(path, recipe, step)
    if paths.is_remote(path) or os.access(path, os.W_OK):
      compile_cache.use(path)
    return restore.load_ema(path, recipe, step, ema)

  return Run(path, recipe, read, ema, say)


def _folder(path):
  """A path as text, or a Refusal that says what it is instead of a run."""
  if not isinstance(path, str | os.PathLike) or not os.fspath(path):
    raise Refusal(
      f"a run is loaded from a path or a URL, not {settings_lib.said(path)}"
    )
  text = os.fspath(path)
  if paths.is_remote(text):
    paths.use(text)
  else:
    text = os.path.expanduser(text)
  text = text.rstrip("/") or text
  try:
    _check_folder(text)
  except OSError as error:
    raise Refusal(f"{text}: {paths.reason(error)}") from error
  return text


def _check_folder(text):
  holds_config = lambda place: paths.exists(paths.join(place, CONFIG))
  if not paths.exists(text):
    raise Refusal(f"there is no folder {text}")
  parent = os.path.dirname(text)
  if not paths.is_directory(text):
    raise Refusal(f"{text} is a file: a run is its folder, {parent}")
  if holds_config(text):
    return
  if holds_config(parent):
    raise Refusal(f"{text} is a part of a run: the run is {parent}")
  inside = [n for n in paths.names(text) if holds_config(paths.join(text, n))]
  if inside:
    raise Refusal(
      f"{text} holds no run: it has no config.json; of the folders in it "
      f"{', '.join(inside)} {'are runs' if len(inside) > 1 else 'is one'}"
    )
