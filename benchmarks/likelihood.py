"""Log-likelihood of a mixture: error and time, beside two others.

    pip install torch torchdiffeq
    python benchmarks/likelihood.py [--quick]

All integrate the same probability-flow ODE of the same closed-form mixture in
float64 with the exact trace, on one thread: ours with one step size for all and
with one for each sample; diffrax's Tsit5 as one writes it by hand; and
PyTorch's torchdiffeq by Dopri5. What counts is the time at equal error.
"""

import argparse
import os
import time

FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

import diffrax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchdiffeq  # noqa: E402

import diffflow_jax as dfj  # noqa: E402

DIM = 3
MEANS = np.random.default_rng(0).normal(size=(4, DIM))
STDS = np.array([0.3, 0.5, 0.4, 0.6])
TOLERANCES = 1e-5, 1e-6, 1e-7


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


def by_torchdiffeq(x, tolerance):
  """log p (batch,) by torchdiffeq, differentiating by torch.func."""
  jacobian = torch.func.jacfwd(velocity)
  trace = lambda z, t: torch.trace(jacobian(z, t))
  both = torch.func.vmap(lambda z, t: (velocity(z, t), trace(z, t)), (0, None))
  z, gained = torchdiffeq.odeint(
    lambda t, state: both(state[0], t),
    (x, torch.zeros(len(x)).to(x)),
    torch.tensor([0.0, 1.0]).to(x),
    rtol=tolerance,
    atol=tolerance,
    method="dopri5",
  )
  normal = torch.distributions.Normal(0.0, 1.0)
  return (normal.log_prob(z[-1]).sum(-1) + gained[-1]).numpy()


@jax.jit
def by_hand(model, x, tolerance):
  """The same by diffrax, with one step size for the batch."""

  def u(z, t):
    lv = dfj.Level(2.0 * jnp.log((1.0 - t) / t), 1.0 - t, t)
    x_hat, eps_hat = model(z[None], lv)
    return (eps_hat - x_hat)[0]

  both = lambda z, t: (u(z, t), jnp.trace(jax.jacfwd(u)(z, t)))
  out = diffrax.diffeqsolve(
    diffrax.ODETerm(lambda t, y, _: jax.vmap(both, (0, None))(y[0], t)),
    diffrax.Tsit5(),
    0.0,
    1.0,
    dt0=None,
    y0=(x, jnp.zeros(len(x))),
    stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
  )
  z, gained = (leaf[-1] for leaf in out.ys)
  return jax.scipy.stats.norm.logpdf(z).sum(-1) + gained


def timed(fn, repeats):
  """(result, median CPU seconds of the calls after the first)."""
  out, seconds = fn(), []
  for _ in range(repeats):
    start = time.process_time()
    out = fn()
    seconds.append(time.process_time() - start)
  return out, np.median(seconds)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--quick", action="store_true")
  quick = parser.parse_args().quick
  num, repeats = (16, 1) if quick else (512, 9)
  jax.config.update("jax_enable_x64", True)
  torch.set_num_threads(1)
  model = dfj.closed_form.mixture(np.ones(4), MEANS, STDS)
  x = model.sample(jax.random.key(0), num)
  exact = np.asarray(model.log_prob(x, dfj.Level(np.inf, 1.0, 0.0)))
  at = torch.tensor(np.asarray(x))
  same = torch.stack([log_density(z, 1.0, 0.0) for z in at]).numpy()
  assert np.allclose(same, exact, atol=1e-6)  # all solve the same problem
  ours = lambda tol, per_sample: dfj.adaptive.log_likelihood(
    model, x, rtol=tol, atol=tol, per_sample=per_sample
  )[0]
  solvers = {
    "diffflow_jax": lambda tol: ours(tol, False),
    "diffflow_jax, per_sample": lambda tol: ours(tol, True),
    f"diffrax {diffrax.__version__}, Tsit5 by hand": lambda tol: by_hand(
      model, x, tol
    ),
    f"torchdiffeq {torchdiffeq.__version__}": lambda tol: by_torchdiffeq(
      at, tol
    ),
  }
  device = jax.devices()[0].device_kind
  print(f"{num} samples in {DIM} dimensions, exact trace, {device}\n")
  print("| | tolerance | error: max | rms | CPU ms |")
  print("|---|---|---|---|---|")
  for name, solve in solvers.items():
    for tol in TOLERANCES:
      run = lambda solve=solve, tol=tol: np.asarray(solve(tol))
      value, seconds = timed(run, 1 if "torch" in name else repeats)
      error = np.abs(value - exact)
      print(
        f"| {name} | {tol:.0e} | {error.max():.1e} | "
        f"{np.sqrt(np.mean(error**2)):.1e} | {1e3 * seconds:.1f} |",
        flush=True,
      )


if __name__ == "__main__":
  main()
