"""Couplings: which noise goes with which data within a minibatch."""

import jax
import jax.numpy as jnp
import numpy as np


def _assign(cost):
  from scipy.optimize import linear_sum_assignment

  return linear_sum_assignment(np.asarray(cost))[1].astype(np.int32)


def minibatch_ot(x, eps):
  """The eps, reordered so that Σ_i ‖x_i - eps_i‖² is the least possible.

  Minibatch optimal transport for flow matching, Pooladian et al.,
  arXiv:2304.14772, and Tong et al., arXiv:2302.00482: paths cross less, so that
  they are straighter. Each eps_i alone is still N(0, I), but x and eps are no
  longer independent: identities that need it (implied ELBO) do not hold.

  The assignment is solved on the host by SciPy, O(batch³), also under jit.

  Args:
    x, eps: (batch, ...).
  Returns:
    eps[permutation], like eps.
  """
  batch = x.shape[0]
  flat = lambda y: jnp.reshape(y, (batch, -1)).astype(jnp.float32)
  cost = -flat(x) @ flat(eps).T  # ‖x - eps‖² up to terms that do not move
  shape = jax.ShapeDtypeStruct((batch,), jnp.int32)
  return eps[jax.pure_callback(_assign, shape, cost)]
