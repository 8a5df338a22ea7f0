"""The guide's own schedule, weighting, target and density: at most five lines
each, and they run."""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.objective import losses
from tests import pages


def test_the_blocks_run_and_what_they_make_trains(capsys):
  space = {}
  blocks = pages.blocks("docs/guides/your_own.md")
  for block in blocks:
    exec(block, space)
  for block in blocks[:4]:  # the definition itself, imports and check aside
    lines = [l for l in block.splitlines() if l and not l.startswith("import")]
    assert len([l for l in lines if not l.startswith("schedule =")]) <= 5
  assert "weighting      differ" in capsys.readouterr().out
  o = space["objective"]
  # the density is one: its slope is its probability
  u, h = jnp.linspace(0.06, 0.94, 12), 1e-3
  slope = (o.density.logsnr(u + h) - o.density.logsnr(u - h)) / (2 * h)
  p = jnp.exp(o.density.log_prob(o.density.logsnr(u)))
  np.testing.assert_allclose(p * jnp.abs(slope), 1.0, rtol=2e-3)
  # and a loss with all four of them has a finite gradient
  apply = lambda w, z, logsnr, cond: w * z
  x = jnp.linspace(-1.0, 1.0, 16)[:, None]
  loss = lambda w: losses.weighted_mse(
    o, apply, w, jax.random.key(0), x
  ).loss.mean()
  assert np.isfinite(jax.grad(loss)(0.3)) and loss(0.3) > 0
  # it is an argument of jit, and the schedule went to all of its places
  got = jax.jit(lambda o: losses.log_factor(o, jnp.array([0.3])))(o)
  np.testing.assert_allclose(got, losses.log_factor(o, jnp.array([0.3])))
  assert o.schedule.top == 12.0
