"""Looks at a config's data before anything trains on it.

  python -m diffflow_jax.look --config=configs/digits.py
  python -m diffflow_jax.look --config=FILE --out=batch.png
  python -m diffflow_jax.look --config=FILE --config.dataset.path=FOLDER

Prints how many examples there are, of which shape, type, range, mean, standard
deviation and classes, what is odd about them and what cannot be meant (exit
status 2). --out draws a batch exactly as the network will see it. Large data
are looked at in part: the first line says how many examples.
"""

import os

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Refusal


def main(argv):
  """Looks, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  cli.define_config(values, argv)
  flags.DEFINE_string("out", None, "Picture, .png.", flag_values=values)
  cli.parse(values, argv, __doc__, required=("config",))
  out = values.out
  if out is not None:
    if os.path.splitext(out)[1].lower() != ".png":
      raise Refusal(f"--out must end in .png, not {out!r}")
    cli.open_output(out, "out")
  config = cli.chosen_config(values)

  from diffflow_jax.training import first_look
  from diffflow_jax.training.resolve import resolve

  run = resolve(config)
  found = first_look.inspect(run)
  print(found.summary())
  if run.held_out is not None:
    print(f"held out: {run.held_out[1]:,} examples")
  for warning in found.warnings:
    print(f"odd: {warning}")
  for refusal in found.refusals[1:]:  # the first one is what this ends with
    print(f"refused: {refusal}")
  if out is not None and found.looked_at:
    first_look.save_picture(out, run, found)
    print(f"a batch as the network sees it in {out}")
  first_look.check(run, found)
