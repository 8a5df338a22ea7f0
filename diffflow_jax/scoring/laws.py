"""Metrics of data whose law is known in closed form: no features, no floor."""

import jax.numpy as jnp
import numpy as np

from diffflow_jax import evaluation
from diffflow_jax.process import levels
from diffflow_jax.sampling import likelihood


def _points(judged):
  samples = np.asarray(judged.samples.array())
  return samples.reshape(len(samples), -1)


def mode_shares(judged):
  """The p-value of the modes' shares, and the most that one is off."""
  found = evaluation.mode_shares(_points(judged), judged.law)
  shares = np.array([share.value for share in found.shares])
  off = int(np.abs(shares - found.expected).argmax())
  return {
    "mode_shares": {
      "value": float(np.abs(shares - found.expected).max()),
      "standard_error": float(found.shares[off].standard_error),
      "low": None,
      "high": None,
      "p_value": found.p_value,
      "shares": [list(map(float, share)) for share in found.shares],
      "expected": found.expected.tolist(),
    }
  }


def log_likelihood(judged):
  """E log p of samples under the data's law, in nats."""
  found = evaluation.log_likelihood(_points(judged), judged.law)
  return {"log_likelihood": found}


def kl(judged, num=2000, rtol=1e-5):
  """KL(data ‖ model) in nats, the model's density by its flow, unguided."""
  x, _ = judged.reference.examples(num)
  clean = levels.from_pair(1.0, 0.0)
  exact = judged.law.log_prob(x, clean)
  model, _ = likelihood.log_likelihood(
    judged.run.predict, jnp.asarray(x), rtol=rtol, atol=rtol
  )
  found = evaluation.kl(np.asarray(exact), np.asarray(model))
  names = evaluation.Estimate._fields
  return {
    "kl": {
      **dict(zip(names, map(float, found), strict=True)),
      "num_samples": len(x),
    }
  }
