"""What two recipes share and where they differ.

    python -m diffflow_jax.compare --configs=flow_matching,v_diffusion
    python -m diffflow_jax.compare --configs=edm,my_config.py --out=edm.png

Each of the two is the name of an objective, or a Python file whose get_config()
has `objective.name` and `objective.kwargs`. Prints the report; --out also draws
it over log-SNR.
"""

import argparse
import pathlib
import runpy
import sys


def _parse(argv):
  parser = argparse.ArgumentParser(
    prog="python -m diffflow_jax.compare",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--configs",
    required=True,
    metavar="A,B",
    help="two objectives or config files, with a comma between them",
  )
  parser.add_argument("--out", metavar="FILE.png", help="where to draw it")
  return parser.parse_args(argv)


def _objective(config):
  """The objective of a recipe's name or of a config file."""
  from diffflow_jax.objective import objectives

  if not config.endswith(".py"):
    return objectives.make(config)
  if not pathlib.Path(config).is_file():
    raise ValueError(f"--configs: there is no file {config!r}")
  get_config = runpy.run_path(config).get("get_config")
  if get_config is None:
    raise ValueError(f"--configs: {config!r} has no get_config()")
  section = getattr(get_config(), "objective", None)
  if section is None or "name" not in section:
    raise ValueError(f"--configs: {config!r} has no field objective.name")
  return objectives.make(section["name"], **dict(section.get("kwargs", {})))


def _check(args):
  """The two names, before anything slow is imported."""
  names = [name.strip() for name in args.configs.split(",")]
  if len(names) != 2 or not all(names):
    raise ValueError(
      f"--configs must be two names with a comma, not {args.configs!r}"
    )
  out = args.out and pathlib.Path(args.out)
  if out and not out.parent.is_dir():
    raise ValueError(f"--out: there is no folder {str(out.parent)!r}")
  if out and out.suffix not in (".png", ".pdf", ".svg"):
    raise ValueError(f"--out must end in .png, .pdf or .svg, not {args.out!r}")
  return names


def main(argv=None):
  args = _parse(argv)
  try:
    names = _check(args)
    a, b = (_objective(name) for name in names)
  except ValueError as error:
    print(f"compare: {error}", file=sys.stderr)
    return 2
  from diffflow_jax.objective.comparison import compare

  comparison = compare(a, b, [pathlib.Path(name).stem for name in names])
  print(comparison)
  if args.out:
    import matplotlib

    matplotlib.use("Agg")
    from diffflow_jax.plots.comparisons import plot_comparison

    plot_comparison(comparison).savefig(args.out, dpi=150)
    print(f"drawn in {args.out}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
