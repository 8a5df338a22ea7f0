"""Makes one HTML page with sliders over schedules, solvers, noise and guidance.

  python -m diffflow_jax.explore --out=explorer.html

Open it in any browser: it needs no server and no network, and its numbers are
the library's tables, run in the page. Takes about 20 seconds.
"""

import os

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Refusal


def main(argv):
  """Makes the page, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  flags.DEFINE_string("out", "explorer.html", "The page.", flag_values=values)
  cli.parse(values, argv, __doc__)
  out = values.out
  if os.path.splitext(out)[1].lower() not in (".html", ".htm"):
    raise Refusal(f"--out must end in .html, not {out!r}")
  cli.open_output(out, "out")

  from diffflow_jax.explorer import page

  text = page.html()
  with open(out, "w", encoding="utf-8") as file:
    file.write(text)
  size = len(text.encode()) / 1e6
  print(f"{out}: {size:.1f} MB; open it in a browser")
