"""Config files: Python that is run, and every way in which it can go wrong.

`train` and `compare` read them here, so that both say the same of a file that
is broken: its name, the line, and what is wrong there. Imports no JAX.
"""

from collections.abc import Mapping
import importlib.util
import inspect
import numbers
import os
import pathlib
import sys
import traceback

import ml_collections

from diffflow_jax.refusals import Refusal

OURS = "diffflow_jax/"  # diffflow_jax/digits is configs/digits.py of ours


def load(text, flag="config"):
  """The ConfigDict of FILE.py or FILE.py:SIZE, or of diffflow_jax/NAME[:SIZE].

  Args:
    text: a file; or the name of one of the library's own configs, wherever it
      is installed, as diffflow_jax/digits.
    flag: of which it is the value, for the message.
  Raises:
    Refusal: there is no such file, it cannot be run, or its get_config() gives
      no config.
  """
  path, config = called(text, flag, "get_config")
  if not isinstance(config, Mapping) and not hasattr(config, "to_dict"):
    what = "nothing" if config is None else f"a {type(config).__name__}"
    raise Refusal(
      f"--{flag}: get_config() of {path} returns {what}, not a ConfigDict"
    )
  if not isinstance(config, ml_collections.ConfigDict):
    config = ml_collections.ConfigDict(dict(config))
  return _with_rate(config)


def called(text, flag, function):
  """(path, what the function of a name in FILE.py or FILE.py:SIZE returns).

  Raises:
    Refusal: as `load` does.
  """
  path, _, size = text.partition(":")
  if path.startswith(OURS) and not os.path.exists(path):
    path = _ours(path.removeprefix(OURS).removesuffix(".py"), flag)
  if os.path.isdir(path):
    raise Refusal(f"--{flag}: {path!r} is a directory, not a file")
  if not os.path.isfile(path):
    named = function == "get_config" and not path.endswith(".py")
    ours = f"; ours are {OURS}digits and the like" if named else ""
    raise Refusal(f"--{flag}: there is no file {path!r}{ours}")
  made = getattr(_run(path, flag), function, None)
  if not callable(made):
    raise Refusal(f"--{flag}: {path} has no {function}()")
  given = (size,) if size else ()
  try:
    inspect.signature(made).bind(*given)
  except TypeError as error:
    what = f"takes no size, as {size!r}" if size else "cannot do without a size"
    raise Refusal(f"--{flag}: {function}() of {path} {what}") from error
  return path, guarded(path, flag, lambda: made(*given))


def _ours(name, flag):
  """The path of a config of the library's own, in a wheel or in a clone."""
  package = pathlib.Path(__file__).parent
  for folder in (package / "configs", package.parent / "configs"):
    files = {path.stem: path for path in sorted(folder.glob("*.py"))}
    if name in files:
      return str(files[name])
    if files:
      raise Refusal(
        f"--{flag}: {OURS}{name} is none of the library's configs; known: "
        f"{', '.join(OURS + stem for stem in files)}"
      )
  raise Refusal(f"--{flag}: the library's configs are not installed with it")


def _with_rate(config):
  """A number as learning_rate is a constant one."""
  rate = config.get("learning_rate", None)
  if isinstance(rate, numbers.Real):
    with config.unlocked(), config.ignore_type():
      config.learning_rate = ml_collections.ConfigDict(
        {"name": "constant_schedule", "value": float(rate)}
      )
  return config


def spelled_out(argv):
  """argv with --config.learning_rate=NUMBER as the constant rate that it is."""
  out, head = [], "--config.learning_rate="
  for arg in argv:
    try:
      rate = float(arg[len(head) :]) if arg.startswith(head) else None
    except ValueError:
      rate = None
    if rate is None:
      out.append(arg)
    else:
      dots = head.replace("rate=", "rate.")
      out += [f"{dots}name=constant_schedule", f"{dots}value={rate!r}"]
  return out


def _run(path, flag):
  """The module of a file, run."""
  name = f"diffflow_config_{abs(hash(os.path.abspath(path)))}"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module  # as dataclasses look themselves up there
  try:
    with open(path, "rb") as file:
      code = compile(file.read(), path, "exec")
  except SyntaxError as error:
    line = f", line {error.lineno}" if error.lineno else ""
    raise Refusal(f"--{flag}: {path}{line}: {error.msg}") from error
  except (OSError, ValueError, RecursionError, MemoryError) as error:
    reason = getattr(error, "strerror", None) or error
    raise Refusal(f"--{flag}: {path} cannot be read: {reason}") from error
  guarded(path, flag, lambda: exec(code, vars(module)))
  return module


def guarded(path, flag, call):
  """call(), or a Refusal with the line of the file at which it raised."""
  try:
    return call()
  except Refusal:
    raise
  except (Exception, SystemExit) as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == path]
    where = f"{path}, line {lines[-1]}" if lines else path
    if isinstance(error, SystemExit):
      what = f"calls sys.exit({'' if error.code is None else error.code!r})"
      raise Refusal(f"--{flag}: {where} {what}") from error
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, (ValueError, ImportError)):
      text = f"{type(error).__name__}: {text}".removesuffix(
        f": {type(error).__name__}"
      )
    raise Refusal(f"--{flag}: {where}: {text}") from error
