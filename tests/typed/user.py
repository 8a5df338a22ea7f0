"""A file of a user, for mypy: names resolve, calls have their arguments."""

import jax
import jax.numpy as jnp
import numpy as np

import diffflow_jax as dfj

x = jnp.zeros((10, 2))
objective, net = dfj.objectives.flow_matching(), dfj.networks.MLP()
params = net.init(jax.random.key(0), x[:1], jnp.zeros(1))
loss = dfj.weighted_mse(objective, net.apply, params, jax.random.key(0), x).loss
levels = dfj.grids.uniform_t(objective.schedule, objective.scale, 20)
predict = dfj.predictor(objective, net.apply, params)
table: dfj.Tableau = dfj.solvers.dpmpp_2m(levels)
samples = dfj.sample(predict, table, jax.random.key(1), (1000, 2))
model = dfj.closed_form.mixture([0.3, 0.7], [[-1, 0], [1, 1]], [0.3, 0.5])
guided = dfj.Guided(model, null=0, strength=2.0)
both = guided(x, dfj.levels.at_logsnr(dfj.levels.vp, 1.0))
stronger: dfj.Guided = guided.replace(strength=3.0)
shifted = dfj.schedules.Shift(dfj.schedules.Flow(), 3.0).replace(factor=2.0)
logsnr: jax.Array = dfj.schedules.Cosine().logsnr(0.5)
run = dfj.load("runs/digits")
more = run.sample(64, solver="dpmpp_2m", num_steps=20, guidance=2.0)
run.save_picture("digits.png", more, run.labels(64))
value = dfj.evaluation.frechet(np.asarray(samples), np.asarray(samples))
data = dfj.data.Arrays(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, int))
found = dfj.inspect(data)


@dfj.schedules.schedule
class Quadratic:
  top: float = 10.0

  def logsnr(self, t: jax.Array) -> jax.Array:
    return self.top * (1 - 2 * t**2)


mine = dfj.schedules.check(Quadratic(top=12.0))
