"""A learned schedule on a 2-D mixture: variance of the loss, and the bound.

    python benchmarks/learned_schedule.py [--steps=4000]

configs/toy2d.py:vdm is trained twice on the ring of 8 Gaussians, on the fixed
schedule of VDM (logsnr linear in time) and on a learned one. Each network, and
the exact denoiser of the mixture, then estimate the variational bound on fresh
draws (nats a dimension) on both schedules. Between equal ends the bound has to
be the same; the variance is that of the loss of one example, and that of the
mean over a batch of 512 whose times are spread evenly.
"""

import argparse
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

import diffflow_jax as dfj
from diffflow_jax import config_files
from diffflow_jax.data import toys
from diffflow_jax.objective import bound, densities
from diffflow_jax.process import levels
from diffflow_jax.training.loop import train

HERE = pathlib.Path(__file__).resolve().parent
RING, BATCH, NUM_BATCHES = toys.ring(), 512, 1024
FIXED = dfj.schedules.LinearLogSNR(-5.0, 13.3)


def trained(steps, folder, **objective):
  """The run of the config with another objective."""
  config = config_files.load(f"{HERE.parent}/configs/toy2d.py:vdm")
  config.num_steps, config.objective = steps, {"name": "vdm", **objective}
  config.log_every = config.sample_every = config.checkpoint_every = steps
  train(config, folder)
  return dfj.load(folder)


@jax.jit
def losses(predict, schedule):
  """(batches, BATCH) of the bound's three terms, nats a dimension, and x's."""

  def one(key):
    keys = jax.random.split(key, 4)
    mode = jax.random.randint(keys[0], (BATCH,), 0, 8) * (2 * jnp.pi / 8)
    x = 1.4 * jnp.stack([jnp.cos(mode), jnp.sin(mode)], 1)
    x = x + 0.1 * jax.random.normal(keys[1], x.shape)
    eps = jax.random.normal(keys[2], x.shape)
    u = densities.uniforms(keys[3], BATCH)
    diffusion = bound.diffusion_nats(predict, schedule, u, x, eps)
    clean, noisy = schedule.logsnr(jnp.array([0.0, 1.0]))
    prior = bound.prior_kl(x, levels.at_logsnr(levels.vp, noisy))
    rest = prior + bound.gaussian_decoder(jnp.ones_like(x), clean)  # E eps² = 1
    return diffusion / 2, rest / 2

  return jax.lax.map(one, jax.random.split(jax.random.key(7), NUM_BATCHES))


def row(name, what, predict, schedule):
  """Prints a row: (batch means of the bound, two variances of its estimate)."""
  diffusion, rest = (np.asarray(a) for a in losses(predict, schedule))
  means = (diffusion + rest).mean(axis=1)
  ends = "{1:.2f} to {0:.2f}".format(*schedule.logsnr(jnp.array([0.0, 1.0])))
  one, batch = diffusion.var(), BATCH * diffusion.mean(axis=1).var(ddof=1)
  print(
    f"| {name} | {what} | {ends} | {means.mean():.4f} ± {_error(means):.4f} | "
    f"{one:.1f} | {batch:.1f} |",
    flush=True,
  )
  return means, one, batch


def _error(means):
  return means.std(ddof=1) / np.sqrt(len(means))


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--steps", type=int, default=4000)
  steps = parser.parse_args().steps
  with tempfile.TemporaryDirectory() as folder:
    fixed = trained(steps, f"{folder}/fixed")
    learned = trained(steps, f"{folder}/learned", schedule="learned")
    own = learned.objective.schedule
    inside = own.replace(logsnr_min=-5.0, logsnr_max=13.3)
    print(
      "| denoiser | schedule | logsnr | bound | variance, one example | "
      f"variance of a batch's mean, times {BATCH} |\n|---|---|---|---|---|---|"
    )
    text = []
    for name, predict in (
      ("exact", RING.density),
      ("trained on the fixed one", fixed.predict),
      ("trained on the learned one", learned.predict),
    ):
      was = row(name, "fixed", predict, FIXED)
      now = row(name, "learned, fixed ends", predict, inside)
      row(name, "learned", predict, own)
      moved = now[0] - was[0]  # of the same draws
      text.append(
        f"{name}: the variance falls by {100 * (1 - now[1] / was[1]):.0f} % "
        f"({100 * (1 - now[2] / was[2]):.0f} % in a batch), the bound between "
        f"equal ends moves by {moved.mean():+.4f} ± {_error(moved):.4f}"
      )
  print("\n" + "\n".join(text))


if __name__ == "__main__":
  main()
