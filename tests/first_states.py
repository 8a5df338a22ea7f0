"""Run on 8 forced CPU devices by test_first_state: one state on every mesh.

Prints one line of JSON: {mesh: [digest of the state, bytes on device 0]}.
"""

import hashlib
import json

import jax
import numpy as np

from diffflow_jax.training import programs
from tests import topologies


def digest(state):
  """Of all its bits."""
  arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
  whole = b"".join(a.tobytes() for a in arrays)
  return hashlib.sha256(whole).hexdigest()


def first_state(mesh):
  return programs.build(topologies.make_run(mesh, 1, False)).init({})


def main():
  result = {}
  for name, mesh in topologies.MESHES.items():
    state = first_state(mesh)
    result[name] = [digest(state), topologies.bytes_on_device_0(state)]
  print(json.dumps(result))


if __name__ == "__main__":
  main()
