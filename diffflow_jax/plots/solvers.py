"""Figures of solvers: what they weigh, how they damp, what they cost."""

import numpy as np

from diffflow_jax.plots.figures import subplots
from diffflow_jax.process import targets
from diffflow_jax.sampling import introspection, solvers


def contributions(tables, target=targets.x):
  """The weight of every prediction and every noise draw in the sample.

  Args:
    tables: {label: Tableau}; target: what is predicted.
  Returns:
    A Figure: predictions left, noise right, against the evaluation's log-SNR.
  """
  fig, (left, right) = subplots(1, 2, figsize=(9, 3.4), sharex=True)
  for label, table in tables.items():
    parts = introspection.contributions(table, target)
    n = table.num_evaluations
    x = np.arange(n) / max(n - 1, 1)
    left.plot(x, parts["kept"], ".-", label=label)
    right.plot(np.arange(n + 1) / n, np.abs(parts["noise"]), ".-")
  left.set_ylabel("weight of the prediction")
  right.set_ylabel("|weight of the noise draw|")
  for ax in (left, right):
    ax.set_xlabel("share of evaluations made")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
  left.legend(frameon=False, fontsize=8)
  return fig


def churn(levels, etas=(0.0, 0.5, 1.0), target=targets.v):
  """The figure of contributions for one grid and several amounts of noise.

  The more noise a sampler adds, the more the last predictions weigh.
  """
  return contributions(
    {f"eta = {eta:g}": solvers.sde_dpmpp_1(levels, eta) for eta in etas},
    target,
  )


def damping(tables, stds=None):
  """Gain over the exact gain on Gaussian data of each std; 1 is perfect."""
  stds = np.geomspace(1e-3, 10.0, 61) if stds is None else stds
  fig, ax = subplots(figsize=(5, 3.4))
  for label, table in tables.items():
    ax.semilogx(stds, introspection.damping(table, stds), label=label)
  ax.axhline(1, color="0.8", lw=0.8, zorder=0)
  ax.set_xlabel("standard deviation of the data")
  ax.set_ylabel("gain / exact gain")
  ax.legend(frameon=False, fontsize=8)
  return fig


def order_conditions(tables, degree=3):
  """Errors of the quadrature of x̂ = 1, r, r², … on the tables' own grids.

  Args:
    tables: {label: Tableau} with finite start and end; degree: the highest.
  Returns:
    A Figure: |relative error| against the power; a method of order p on a fine
    grid is small up to the power p - 1.
  """
  fig, ax = subplots(figsize=(5, 3.4))
  for label, table in tables.items():
    errors = np.abs(introspection.order_conditions(table, degree))
    ax.semilogy(range(degree + 1), np.maximum(errors, 1e-16), "o-", label=label)
  ax.set_xticks(range(degree + 1))
  ax.set_xlabel("power of the log-SNR in x̂")
  ax.set_ylabel("|relative error of its integral|")
  ax.legend(frameon=False, fontsize=8)
  return fig


def error_against_evaluations(curves):
  """Errors against NFE, one panel for each problem.

  Args:
    curves: {problem: {label: (nfe, error)}}.
  Returns:
    A Figure with logarithmic axes.
  """
  fig, axes = subplots(
    1, len(curves), figsize=(4.6 * len(curves), 4), squeeze=False
  )
  for ax, (problem, lines) in zip(axes[0], curves.items(), strict=True):
    for k, (label, (nfe, error)) in enumerate(lines.items()):
      style = ("o-", "s--", "^:")[k // 10 % 3]
      ax.loglog(nfe, error, style, ms=3, lw=1.2, label=label)
    ax.set_title(problem)
    ax.set_xlabel("network evaluations")
    ax.set_ylabel("RMS error of the sample")
  axes[0][-1].legend(
    frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5)
  )
  return fig
