"""The train state, and the one step that moves it.

Everything that the future of a run depends on is in the state or is a function
of (seed, step): parameters, EMA, optimiser, and the sums behind the next
metrics line. A run resumed from a saved state goes on to the same bits.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffflow_jax.objective import losses

# edges of the log-SNR bins that the loss is reported in
BIN_EDGES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)


@struct.dataclass
class Sums:
  """Running sums since the last metrics line."""

  steps: jax.Array
  loss: jax.Array
  grad_norm: jax.Array
  bin_count: jax.Array  # (len(BIN_EDGES) + 1,)
  bin_eps_mse: jax.Array


@struct.dataclass
class TrainState:
  """What a checkpoint holds.

  Attributes:
    step: number of finished steps, int32.
    params, ema: the network's, and their exponential moving average.
    bad_step: the first step whose loss or gradient was not finite, or -1.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  sums: Sums
  bad_step: jax.Array


def no_sums():
  """Sums of nothing."""
  bins = np.zeros(len(BIN_EDGES) + 1, np.float32)
  zero = np.zeros((), np.float32)
  return Sums(zero, zero, zero, bins, bins)


def create(network, tx, dataset, seed):
  """The state at step 0: a function of the seed."""
  z = jnp.zeros((1, *dataset.shape))
  cond = jnp.zeros((1,), jnp.int32) if dataset.num_classes else None
  params = network.init(jax.random.key(seed), z, jnp.zeros((1,)), cond)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema=jax.tree.map(jnp.copy, params),
    opt_state=tx.init(params),
    sums=jax.tree.map(jnp.asarray, no_sums()),
    bad_step=-jnp.ones((), jnp.int32),
  )


def drop_labels(key, label, num_classes, rate):
  """Labels with some replaced by num_classes, "no class", for guidance."""
  drop = jax.random.bernoulli(key, rate, label.shape)
  return jnp.where(drop, num_classes, label)


def make_train_step(objective, apply, tx, dataset, *, seed, ema, label_dropout):
  """The pure step: (state, batch) -> state. Jit it once, donate the state.

  Args:
    objective: what is minimised; apply: (params, z, logsnr, cond) -> output.
    tx: an optax transformation; dataset: for to_float and num_classes.
    seed: step n draws from fold_in(key(seed), n).
    ema: decay of the average; starts as (1 + n)/(10 + n) while that is smaller.
    label_dropout: share of examples trained without their label.
  """

  def step(state, batch):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    loss_key, drop_key = jax.random.split(key)
    x, cond = dataset.to_float(batch["x"]), batch.get("label")
    if cond is not None:
      cond = drop_labels(drop_key, cond, dataset.num_classes, label_dropout)

    def loss_fn(params):
      terms = losses.weighted_mse(objective, apply, params, loss_key, x, cond)
      return terms.loss.mean(), terms

    (loss, terms), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params
    )
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    n = state.step.astype(jnp.float32)
    decay = jnp.minimum(ema, (1.0 + n) / (10.0 + n))
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
    return state.replace(
      step=state.step + 1,
      params=params,
      ema=optax.incremental_update(params, state.ema, 1.0 - decay),
      opt_state=opt_state,
      sums=_add(state.sums, loss, grad_norm, terms),
      bad_step=jnp.where(
        bad & (state.bad_step < 0), state.step, state.bad_step
      ),
    )

  return step


def _add(sums, loss, grad_norm, terms):
  index = jnp.searchsorted(jnp.array(BIN_EDGES), terms.logsnr)
  inside = jax.nn.one_hot(index, len(BIN_EDGES) + 1)
  return Sums(
    steps=sums.steps + 1.0,
    loss=sums.loss + loss,
    grad_norm=sums.grad_norm + grad_norm,
    bin_count=sums.bin_count + inside.sum(0),
    bin_eps_mse=sums.bin_eps_mse + terms.eps_mse @ inside,
  )


def summarise(sums):
  """Sums as the numbers of one metrics line (on the host)."""
  sums = jax.tree.map(np.asarray, sums)
  line = {
    "loss": float(sums.loss / sums.steps),
    "grad_norm": float(sums.grad_norm / sums.steps),
  }
  edges = ["-inf", *(f"{e:g}" for e in BIN_EDGES), "inf"]
  for i, count in enumerate(sums.bin_count):
    if count:
      name = f"eps_mse/logsnr_{edges[i]}_{edges[i + 1]}"
      line[name] = float(sums.bin_eps_mse[i] / count)
  return line
