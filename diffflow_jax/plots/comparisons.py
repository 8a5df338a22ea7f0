"""The picture of a comparison: four choices over log-SNR, and the clock."""

import textwrap

import numpy as np

from diffflow_jax.plots.figures import subplots


def _two(ax, x, comparison, aspect, ylabel):
  for name, curve, style in zip(
    comparison.names, (aspect.a, aspect.b), ("-", "--"), strict=True
  ):
    ax.plot(x, curve, style, label=name)
  verdict = "same" if aspect.same else "differ"
  ax.set(ylabel=ylabel, title=f"{ylabel}: {verdict}")


def plot_comparison(comparison):
  """A figure of a `Comparison`: returns the matplotlib Figure."""
  figure, axes = subplots(2, 3, figsize=(12.0, 7.6))
  (density, weighting, clock), (output, scaling, words) = axes
  c, x = comparison, comparison.logsnr
  _two(density, x, c, c.density, "density")
  _two(weighting, x, c, c.weighting, "weighting")
  weighting.set_yscale("log")
  _two(scaling, x, c, c.input_scaling, "input scaling")
  scaling.set_yscale("log")
  _two(clock, c.t, c, c.schedule, "schedule")
  clock.set_xlabel("t")
  aspect = c.network_output
  for name, rows, style in zip(
    c.names, (aspect.a, aspect.b), ("-", "--"), strict=True
  ):
    rows = rows / np.hypot(rows[:, :1], rows[:, 1:])
    output.plot(x, rows[:, 0], style, color="tab:blue", label=f"{name}: x")
    output.plot(x, rows[:, 1], style, color="tab:red", label=f"{name}: eps")
  output.set_title(f"network output: {'same' if aspect.same else 'differ'}")
  _legend(output)
  for ax in (density, weighting, output, scaling):
    ax.set_xlabel("logsnr")
  _legend(density)
  words.axis("off")
  words.text(
    0.0,
    1.0,
    _wrapped(str(c)),
    va="top",
    fontsize="x-small",
    family="monospace",
    transform=words.transAxes,
  )
  return figure


def _legend(ax):
  """Under the axis, where no curve is covered."""
  ax.legend(
    fontsize="small",
    ncols=2,
    loc="upper center",
    bbox_to_anchor=(0.5, -0.2),
    frameon=False,
  )


def _wrapped(report, width=58):
  return "\n".join(
    textwrap.fill(line.strip(), width, subsequent_indent="  ")
    for line in report.splitlines()
  )
