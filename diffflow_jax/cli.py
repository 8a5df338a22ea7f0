"""What the commands share: flags, refusals, logging. Imports no JAX.

A command refuses what cannot work in one sentence, with exit status 2 and
without a traceback, before anything is compiled or written.
"""

import ast
import difflib
import logging
import os
import re
import sys
import traceback

from absl import flags
from ml_collections import config_flags

from diffflow_jax.config_files import load as load_config, spelled_out
from diffflow_jax.refusals import Failure, Refusal

LISTED = 200  # characters of names that a message lists
FEW = 6  # names of a list that is longer
__all__ = [
  "Failure", "Refusal", "check_given", "chosen_config", "define_config",
  "exit_status", "load_config", "new_flags", "numbers", "open_output", "parse",
  "parse_spec", "run", "unknown",
]  # fmt: skip


class _ConfigFiles(flags.ArgumentParser):
  """Reads the file of --config, with a sentence for whatever is wrong in it."""

  def parse(self, argument):
    return load_config(argument)


def define_config(values, argv):
  """--config=FILE.py[:ARG] and --config.any.field=value."""
  try:
    _define_file(values, argv)
  except flags.Error as error:  # of a --flagfile that cannot be read
    raise Refusal(_one_line(error)) from error
  values["config"].parser = _ConfigFiles()


def _define_file(values, argv):
  config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, as FILE.py or FILE.py:smoke; change any field with "
    "--config.field=value.",
    flag_values=values,
    sys_argv=spelled_out(argv),
    lock_config=False,
    accept_new_attributes=True,  # `resolve` knows which fields there are
  )


def chosen_config(values):
  """The config with its overrides; a section renamed starts from nothing.

  --config.optimizer.name=sgd takes SGD with its defaults: the settings that the
  config file gives its own optimizer go, those of the command line stay. A
  setting that follows another one in the file, decay_steps say, no longer does.
  """
  config, overrides = values.config, values["config"].override_values
  if not any("." in path for path in overrides):
    return config
  plain = load_config(values["config"].config_filename)  # without overrides
  _unfollow(config, plain, overrides)
  for path, name in overrides.items():
    section, _, key = path.rpartition(".")
    if key == "name" and name != plain.get(section, {}).get("name", name):
      for other in list(config[section]):
        if other != "name" and f"{section}.{other}" not in overrides:
          del config[section][other]
      if section == "dataset":  # which data its held-out part was, goes too
        for other in list(config.get("held_out", ())):
          ours = (
            other in ("num", "fraction") or f"held_out.{other}" in overrides
          )
          if not ours:
            del config.held_out[other]
  return config


def _unfollow(config, plain, overrides):
  """Undoes that setting a follower has set what it followed."""
  for path, value in overrides.items():
    section, _, key = path.rpartition(".")
    if section and key in config[section]:
      del config[section][key]  # and the reference with it
      config[section][key] = value
  for key in plain:
    value = overrides.get(key, plain[key])
    if not hasattr(value, "items") and config.get(key) != value:
      config[key] = value


def parse(values, argv, doc, required=()):
  """Parses argv into absl FlagValues, or refuses it; --help prints doc."""
  if any(a in ("--help", "-h", "-help") for a in argv[1:]):
    print(_help(values, doc))
    sys.exit(0)
  try:
    rest = values(spelled_out(argv))
  except Refusal:
    raise
  except Exception as error:  # whatever absl and ml_collections make of it
    if isinstance(error, KeyError):
      raise Refusal(_no_section(str(error.args[0]).strip("'"), argv)) from error
    section = re.match(
      r"flag (--config\.[^=]+)=(.*): Failed to", str(error), re.S
    )
    if section:  # a value in the place of a section
      name = section[2].partition(":")[0]
      one = f"name={name}" if name.isidentifier() else "FIELD=VALUE"
      raise Refusal(
        f"{section[1]}={section[2]}: that is a section with fields, as "
        f"{section[1]}.{one}"
      ) from error
    what = "no such field: " if isinstance(error, AttributeError) else ""
    raise Refusal(what + _one_line(error)) from error
  if len(rest) > 1:
    raise Refusal(f"unexpected argument {rest[1]!r}: flags start with --")
  for name in required:
    check_given(values, name)
  return values


def _no_section(key, argv):
  """What a --config.a.b=value says of an a that has no fields."""
  flag = next((a for a in argv if f".{key}." in a), f"--config.{key}.")
  head = flag.partition(f".{key}.")[0] + f".{key}"
  return (
    f"{flag}: the config has no section {key!r} with fields; if it is one "
    f"name, write {head}=NAME or {head}=NAME:setting=value"
  )


def check_given(values, name):
  """Refuses values without the flag of a name."""
  if values[name].value in (None, ""):
    raise Refusal(f"--{name} is missing; see --help")


def _help(values, doc):
  lines = [doc.strip(), "", "Flags:"]
  for name in values:
    flag = values[name]
    default = "" if flag.default is None else f" [{flag.default}]"
    lines.append(f"  --{name:12s} {flag.help}{default}")
  return "\n".join(lines)


def open_output(path, name):
  """Refuses a file that cannot be written, before the work that fills it."""
  if os.path.isdir(path):
    raise Refusal(f"--{name}: {path} is a directory")
  try:
    with open(f"{path}.partial", "wb"):
      pass
    os.remove(f"{path}.partial")
  except OSError as error:
    raise Refusal(f"--{name}: {path}: {error.strerror}") from error


def _one_line(error):
  """An error's text on one line; of a quoted traceback, what it ends with."""
  text = str(error).strip()
  if text[:1] in ("'", '"') and text[-1:] == text[:1]:  # a KeyError's repr
    text = text[1:-1].replace("\\n", "\n").replace("\\'", "'")
  lines = text.splitlines()
  head, found, _ = " ".join(lines).partition("Traceback (most recent")
  return " ".join(f"{head} {lines[-1]}".split() if found else head.split())


def run(main, argv=None):
  """Runs main(argv) and turns refusals and failures into an exit status."""
  logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
  # dependencies may warn; what they merely have to tell is not for our users
  for noisy in ("absl", "jax", "orbax", "matplotlib", "fsspec", "botocore"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
  try:
    sys.exit(main(sys.argv if argv is None else argv))
  except (Refusal, Failure, KeyboardInterrupt) as error:
    sys.exit(exit_status(error))
  except BrokenPipeError:  # who reads the output has seen enough: `| head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def exit_status(error):
  """Prints an error as a command ends with it, and gives its exit status."""
  if isinstance(error, SystemExit):
    return error.code or 0
  if isinstance(error, KeyboardInterrupt):
    return 130
  if not isinstance(error, (Refusal, Failure)):
    traceback.print_exception(error)
    return 1
  print(f"error: {error}", file=sys.stderr, flush=True)
  return 2 if isinstance(error, Refusal) else 1


def parse_spec(text, name):
  """ "dpm:order=3,eta=(0,1)" -> ("dpm", {"order": 3, "eta": (0, 1)})."""
  head, _, rest = text.partition(":")
  settings = {}
  for part in filter(None, re.split(r",(?![^(]*\))", rest)):  # none in brackets
    key, equals, value = part.partition("=")
    if not equals or not key:
      raise Refusal(f"{name}: {part!r} in {text!r} is not setting=value")
    if key in settings:
      raise Refusal(f"{name}: {text!r} sets {key} twice")
    try:
      settings[key] = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
      try:
        settings[key] = float(value)  # nan and inf, which are no literals
      except ValueError:
        settings[key] = {"true": True, "false": False}.get(value, value)
  return head, settings


def unknown(name, known, *also, where="the documentation"):
  """ "known: a, b, or c", and which of them is near to a name.

  Where all are longer than LISTED, the nearest, and how many more there are.

  Args:
    also: what else is allowed; where: all names are listed.
  """
  known = sorted(map(str, known))
  near = difflib.get_close_matches(str(name), known, n=1)
  guess = f"; did you mean {near[0]}?" if near else ""
  text = ", ".join([*known, *also])
  if len(text) <= LISTED:
    return f"known: {text}{guess}"
  shown = difflib.get_close_matches(str(name), known, n=FEW, cutoff=0.3)
  shown = (shown + [one for one in known if one not in shown])[:FEW]
  more = f"and {len(known) - FEW} more in {where}"
  return f"known: {', '.join([*shown, *also])}, {more}{guess}"


def numbers(text, name, kind=float):
  """'0,1,2' -> [0, 1, 2], or a refusal that names the flag."""
  try:
    return [kind(part) for part in text.split(",")]
  except ValueError as error:
    what = "integers" if kind is int else "numbers"
    raise Refusal(
      f"--{name} must be {what} separated by commas, not {text!r}"
    ) from error


def new_flags():
  """Fresh FlagValues: a command's flags, and no other module's."""
  return flags.FlagValues()
