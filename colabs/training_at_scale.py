# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training at scale
#
# A run on eight devices, here eight that a CPU pretends to be: data parallel and
# sharded, killed by `kill -9` and resumed to the same bits, and the same step in a loop
# of your own. About 2 minutes on a CPU. You should see an eighth of the state on each
# device, no bit that differs after the kill, and at the end what changes for a pod.

# %%
REPOSITORY = "https://github.com/diffflow-jax/diffflow_jax"
try:
  import diffflow_jax as dfj
except ImportError:
  import subprocess
  import sys

  pip = [sys.executable, "-m", "pip", "install", "-q"]
  subprocess.run([*pip, f"diffflow_jax[ode] @ git+{REPOSITORY}"], check=True)
  import diffflow_jax as dfj

# %% [markdown]
# JAX reads these when it starts, so they come first: restart the kernel if it has. With
# real devices leave them out; all that follows stays as it is. (`NPROC` is how many
# threads there are: pretended devices wait for each other in a collective, and with few
# threads on few cores they wait for ever.)

# %%
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "32"

import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

SMOKE = bool(os.environ.get("DIFFFLOW_SMOKE"))
num = jax.device_count()
folder = pathlib.Path(tempfile.mkdtemp())
assert num == 8, "restart the kernel, and run the cells from the first"

# %% [markdown]
# ## A run on all of them
#
# `mesh.data` copies the state to groups of devices, `mesh.fsdp` splits it within a
# group; either may be -1, "the rest". Nothing else is said about devices.

# %%
settings = {
  "mesh.data": 1, "mesh.fsdp": 8, "network.width": 64 if SMOKE else 128,
  "network.depth": 1 if SMOKE else 3,
  "num_steps": 60 if SMOKE else 600, "checkpoint_every": 20 if SMOKE else 200,
  "sample_every": 60 if SMOKE else 600, "learning_rate.warmup_steps": 10,
}  # fmt: skip
NAME = "diffflow_jax/toy2d" + (":smoke" if SMOKE else "")
config = dfj.config(NAME)
config.update_from_flattened_dict(settings)
state = dfj.train(config, str(folder / "whole"))

# %% [markdown]
# Parameters, averages and the optimiser's moments are each split along their largest
# dimension; arrays of less than 1024 numbers stay whole. So each device holds about
# an eighth:

# %%
arrays = [x for x in jax.tree.leaves(state) if isinstance(x, jax.Array)]
whole = sum(x.nbytes for x in arrays)
one = sum(x.addressable_shards[0].data.nbytes for x in arrays)
largest = max(arrays, key=lambda x: x.size)
print(f"state: {whole:,} bytes, on the first device {one:,}")
print(
  f"{largest.shape} as {num} times", largest.addressable_shards[0].data.shape
)
assert whole / num <= one < 0.3 * whole
jax.debug.visualize_array_sharding(largest)

# %% [markdown]
# ## Killed, and the same command again
#
# The same run as a job of its own. `kill -9` comes after its first checkpoint: no
# handler runs, nothing is cleaned up. Then the same command, here the same call, goes
# on from what is there, and ends where the uninterrupted run ended.

# %%
workdir = folder / "killed"
flags = [f"--config.{name}={value}" for name, value in settings.items()]
command = [sys.executable, "-m", "diffflow_jax.train", f"--config={NAME}"]
job = subprocess.Popen(
  [*command, f"--workdir={workdir}", *flags],
  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)  # fmt: skip
first = workdir / "checkpoints" / str(settings["checkpoint_every"])
while not first.exists() and job.poll() is None:
  time.sleep(0.01)
job.send_signal(signal.SIGKILL)
print("the job ended with", job.wait())
assert job.returncode == -signal.SIGKILL
print("what it left:", sorted(p.name for p in first.parent.iterdir()))

# %%
again = dfj.train(config, str(workdir))
same = [
  np.array_equal(a, b)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True)
]
print(f"{sum(same)} of {len(same)} arrays have the same bits")
assert all(same)

# %% [markdown]
# ## The same in your own loop
#
# `make_train_step` is a function (state, batch) -> state: `jit` with shardings is all
# that it takes. Noise and levels are functions of (seed, step) and of an example's
# place in the batch, so one device and eight compute the same, up to rounding.

# %%
P, devices = jax.sharding.PartitionSpec, jax.devices()
steps = 4 if SMOKE else 100
objective, data = dfj.objectives.flow_matching(), dfj.data.moons()
net = dfj.networks.MLP(width=64, depth=1 if SMOKE else 3)
tx = optax.adam(1e-3)


def sharded(x, mesh):
  """Large arrays along a dimension that the devices divide, others whole."""
  fits = [i for i, n in enumerate(x.shape) if n % mesh.size == 0]
  axes = [None] * x.ndim
  if fits and x.size >= 1024:
    axes[fits[-1]] = "devices"
  return jax.NamedSharding(mesh, P(*axes))


def losses_on(devices):
  mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
  state = dfj.train_state(objective, net, tx, data, (), seed=0)
  where = jax.tree.map(lambda x: sharded(x, mesh), state)
  split = jax.NamedSharding(mesh, P("devices"))
  whole = jax.NamedSharding(mesh, P())
  step = dfj.with_loss(dfj.make_train_step(
    objective, net.apply, tx, data, (), seed=0, label_dropout=0.0
  ))  # fmt: skip
  step = jax.jit(step, in_shardings=(where, split),
                 out_shardings=(where, whole), donate_argnums=0)  # fmt: skip
  state, losses = jax.device_put(state, where), []
  for i in range(steps):
    batch = jax.device_put(data.batch(seed=0, step=i, size=256), split)
    state, loss = step(state, batch)
    losses.append(float(loss))
  return np.array(losses)


eight = losses_on(devices)
alone = eight if SMOKE else losses_on(devices[:1])
apart = np.abs(eight / alone - 1).max()
print(f"loss {eight[0]:.3f} -> {eight[-1]:.3f}; one device: {apart:.0e} apart")
assert apart < 1e-3
plt.figure(figsize=(5, 2.5))
plt.plot(alone, label="one device")
plt.plot(eight, "--", label="eight")
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()

# %% [markdown]
# ## What changes for a pod
#
# | | |
# |---|---|
# | GPUs of one machine | nothing: leave out the three lines at the top |
# | SLURM | `srun python -m diffflow_jax.train …`, one process a GPU; they find each other |
# | a TPU pod | the same command on every host (`gcloud … ssh --worker=all`) |
# | other clusters | `--coordinator=HOST:PORT --num_processes=N --process_id=I` |
# | a bucket | `--workdir=gs://BUCKET/run` or `s3://…`, and the extra `[gcs]` or `[s3]` |
# | preemption | SIGTERM saves first; then, as after `kill -9`, the same command again |
# | another number of devices | the same command: the state is read into its new mesh |
# | large models | `mesh.fsdp=-1`, `mesh.data=1`; `network.remat=True`, `network.dtype="bfloat16"`, `accumulation=4` |
#
# In a loop of your own on several processes, `data.batch(seed, step, size, index,
# count)` gives each process its rows, and
# `jax.make_array_from_process_local_data(split, rows)` makes one batch of them.
#
# ## Yours to change
#
# - `mesh.data` and `mesh.fsdp`: 8 and 1, 2 and 4; the losses stay.
# - when the kill comes: after the second checkpoint, or before the first.
# - `accumulation`: 2 or 4 parts of a batch, and the same steps.
