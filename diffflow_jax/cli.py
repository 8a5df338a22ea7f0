"""What the commands share: flags, refusals, logging. Imports no JAX.

A command refuses what cannot work in one sentence, with exit status 2 and
without a traceback, before anything is compiled or written.
"""

import ast
import logging
import os
import sys
import traceback

from absl import flags
from ml_collections import config_flags


class Refusal(Exception):
  """What the user asked for cannot be done; the message says why."""


class Failure(Exception):
  """The work went wrong on its way; the message says where."""


def define_config(values, argv):
  """--config=FILE.py[:ARG] and --config.any.field=value."""
  config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, as FILE.py or FILE.py:smoke; change any field with "
    "--config.field=value.",
    flag_values=values,
    sys_argv=argv,
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
  argv = ["", f"--config={values['config'].config_filename}"]
  plain = new_flags()  # the file's own, without overrides
  define_config(plain, argv)
  plain(argv)
  _unfollow(config, plain.config, overrides)
  for path, name in overrides.items():
    section, _, key = path.rpartition(".")
    if key == "name" and name != plain.config[section].get("name", name):
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
  for arg in argv[1:]:
    path = arg.removeprefix("--config=").partition(":")[0]
    if arg.startswith("--config=") and not os.path.isfile(path):
      raise Refusal(f"--config: there is no file {path!r}")
  try:
    rest = values(argv)
    config = values.config if "config" in values else None
    if config is not None:
      dict(config)  # an unreadable config file raises here
  except SystemExit:
    raise
  except Exception as error:  # absl, or whatever the config file itself raises
    what = "no such field: " if isinstance(error, AttributeError) else ""
    raise Refusal(what + _one_line(error)) from error
  if len(rest) > 1:
    raise Refusal(f"unexpected argument {rest[1]!r}: flags start with --")
  for name in required:
    check_given(values, name)
  return values


def check_given(values, name):
  """Refuses values without the flag of a name."""
  if values[name].value is None:
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
  """ "dpm:order=3,kind=a" -> ("dpm", {"order": 3, "kind": "a"})."""
  head, _, rest = text.partition(":")
  settings = {}
  for part in filter(None, rest.split(",")):
    key, equals, value = part.partition("=")
    if not equals:
      raise Refusal(f"{name}: {part!r} in {text!r} is not setting=value")
    try:
      settings[key] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      settings[key] = value
  return head, settings


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
