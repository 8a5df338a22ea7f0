"""Log-likelihood of a mixture: error and time, beside PyTorch's torchdiffeq.

    pip install torch torchdiffeq
    python benchmarks/likelihood.py [--quick]

Both integrate the same probability-flow ODE of the same closed-form mixture in
float32 by Dopri5 with rtol = atol = 1e-6 and the exact trace: ours with a step
size per sample, torchdiffeq's with one for the batch, as it does.
"""

import argparse
import time

import jax
import numpy as np
import torch
import torchdiffeq

import diffflow_jax as dfj

DIM = 3
MEANS = np.random.default_rng(0).normal(size=(4, DIM))
STDS = np.array([0.3, 0.5, 0.4, 0.6])
TOLERANCE = 1e-6


def log_density(z, alpha, sigma):
  """log p of z (DIM,) on the path, in PyTorch."""
  means, stds = torch.tensor(MEANS).to(z), torch.tensor(STDS).to(z)
  var = (alpha * stds) ** 2 + sigma**2
  square = ((z[None] - alpha * means) ** 2).sum(-1)
  each = -0.5 * square / var - 0.5 * DIM * torch.log(2 * torch.pi * var)
  return torch.logsumexp(each, 0) - np.log(len(STDS))


def velocity(z, t):
  """ε̂ - x̂ of one sample on alpha = 1 - t, sigma = t, by x̂'s closed form."""
  means, stds = torch.tensor(MEANS).to(z), torch.tensor(STDS).to(z)
  alpha, sigma = 1.0 - t, t
  var = (alpha * stds) ** 2 + sigma**2
  off = z[None] - alpha * means
  each = -0.5 * (off**2).sum(-1) / var - 0.5 * DIM * torch.log(var)
  r = torch.softmax(each, 0)[:, None]
  x_hat = (r * (means + (alpha * stds**2 / var)[:, None] * off)).sum(0)
  eps_hat = (r * (sigma / var)[:, None] * off).sum(0)
  return eps_hat - x_hat


def theirs(x):
  """log p (batch,) by torchdiffeq, differentiating by torch.func."""
  jacobian = torch.func.jacfwd(velocity)
  trace = lambda z, t: torch.trace(jacobian(z, t))
  both = torch.func.vmap(lambda z, t: (velocity(z, t), trace(z, t)), (0, None))
  z, gained = torchdiffeq.odeint(
    lambda t, state: both(state[0], t),
    (x, torch.zeros(len(x))),
    torch.tensor([0.0, 1.0]),
    rtol=TOLERANCE,
    atol=TOLERANCE,
    method="dopri5",
  )
  normal = torch.distributions.Normal(0.0, 1.0)
  return normal.log_prob(z[-1]).sum(-1) + gained[-1]


def timed(fn, repeats):
  """(result, median seconds of the calls after the first)."""
  out, seconds = fn(), []
  for _ in range(repeats):
    start = time.perf_counter()
    out = fn()
    seconds.append(time.perf_counter() - start)
  return out, np.median(seconds)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--quick", action="store_true")
  quick = parser.parse_args().quick
  num, repeats = (16, 1) if quick else (256, 5)
  model = dfj.closed_form.mixture(np.ones(4), MEANS, STDS)
  x = np.asarray(model.sample(jax.random.key(0), num))
  clean = dfj.levels.Level(np.inf, 1.0, 0.0)
  with jax.enable_x64(True):
    wide = dfj.closed_form.mixture(np.ones(4), MEANS, STDS)
    exact = np.asarray(wide.log_prob(x.astype(np.float64), clean))
  at = torch.tensor(x, dtype=torch.float64)
  same = torch.stack([log_density(z, 1.0, 0.0) for z in at]).numpy()
  assert np.allclose(same, exact, atol=1e-6)  # both solve the same problem
  ours = lambda: jax.block_until_ready(
    dfj.adaptive.log_likelihood(model, x, rtol=TOLERANCE, atol=TOLERANCE)
  )
  (got, count), mine = timed(ours, repeats)
  other, their = timed(lambda: theirs(torch.tensor(x)).numpy(), repeats)
  device = jax.devices()[0].device_kind
  print(f"{num} samples in {DIM} dimensions, exact trace, {device}")
  print("| | max error (nats) | seconds |\n|---|---|---|")
  for name, value, seconds in (
    (f"diffflow_jax ({float(count.mean()):.0f} evaluations)", got, mine),
    (f"torchdiffeq {torchdiffeq.__version__}", other, their),
  ):
    error = np.abs(np.asarray(value) - exact).max()
    print(f"| {name} | {error:.1e} | {seconds:.3f} |")


if __name__ == "__main__":
  main()
