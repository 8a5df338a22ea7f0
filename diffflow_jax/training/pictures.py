"""Pictures of samples while a run trains.

samples/step_<n>.png, and of a few-step method also step_<n>_in_1.png and so on,
in as many steps.
"""

import os

import numpy as np

from diffflow_jax.objective import parameters
from diffflow_jax.process import conditions
from diffflow_jax.runs import conditioning, conditions_file, generate
from diffflow_jax.training import few_step, metrics


def save(state, step, run, told, writer, folder, active):
  """Samples of the averaged parameters on fixed noise, as a PNG and elsewhere.

  Args:
    told: of `conditions_file.of`; writer: a `metrics.Writer`, which hands them
      on; folder: that gets samples/step_<n>.png.
    active: False on all processes but one, which draw with it.
  """
  how, known = run.config.sampler, run.card.conditions
  names = conditioning.guided(run.config, known)
  objective = parameters.settled(run.objective, state.ema[0])
  cond = conditions_file.cond(told, known, how.num_samples)
  predict = generate.make_predict(
    run,
    state.ema[0],
    how.guidance,
    conditions.without(known, names) if names else None,
  )
  for num_steps, suffix in few_step.counts(run):
    samples, labels = generate.generate(
      run,
      predict,
      generate.make_tableau(objective, how.solver, how.grid, num_steps),
      num_samples=how.num_samples,
      seed=run.config.seed,
      cond=cond,
    )
    if not active:
      continue
    from PIL import Image  # comes with matplotlib

    directory = os.path.join(folder, "samples")
    path = os.path.join(directory, f"step_{step:08d}{suffix}.png")
    with metrics.patiently(path):
      os.makedirs(directory, exist_ok=True)
      generate.save_picture(path, run, samples, labels, cond)
      with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
        writer.picture(step, f"samples{suffix}", image)
