"""Parameters as a safetensors file: no pickle, and a checksum of their own."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import recipe as recipe_lib
from diffflow_jax.store import paths
from diffflow_jax.store.digest import name_of

NAME = "params.safetensors"
ABOUT = "diffflow_jax"  # one entry: safetensors has no order for several
FORMAT = 1
TYPES = {  # safetensors' own reader for NumPy has no bfloat16
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": jnp.bfloat16,
  "I32": np.int32,
  "U32": np.uint32,
}


def is_in(path):
  """Whether a folder holds such a file: an export, and not a run's workdir."""
  return paths.exists(paths.join(path, NAME))


def pack(params, step):
  """A pytree as the bytes of a safetensors file, with step and checksum."""
  from safetensors import numpy as safetensors

  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  # safetensors takes contiguous arrays alone
  arrays = {name_of(p): np.asarray(x, order="C") for p, x in leaves}
  known = dict(format=FORMAT, step=step, sha256=checksum(arrays, step))
  metadata = {ABOUT: json.dumps(known)}
  return bytes(safetensors.save(arrays, metadata=metadata))


def about(data):
  """What we noted in a safetensors file, from its bytes: format, step, sha256.

  {} where somebody else wrote it.
  """
  size = int.from_bytes(data[:8], "little")
  metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
  return json.loads(metadata.get(ABOUT, "{}"))


def read(path, recipe, step=None):
  """(step, parameters) of an export.

  Args:
    recipe: what its config names; step: None, or what the step has to be.
  Raises:
    Refusal: the file is damaged, of another network, or of another step.
  """
  import safetensors

  file = paths.join(path, NAME)
  try:
    data = paths.read(file)
  except OSError as error:
    raise Refusal(f"{file}: {paths.reason(error)}") from error
  try:
    arrays, known = _arrays(safetensors.deserialize(data)), about(data)
  except (safetensors.SafetensorError, ValueError, KeyError) as error:
    raise Refusal(f"{file} is damaged or cut off: {error}") from error
  if known.get("format") != FORMAT:
    raise Refusal(
      f"{file} has the format {known.get('format')} of diffflow_jax, and this "
      f"version reads {FORMAT}"
    )
  if known.get("sha256") != checksum(arrays, known.get("step")):
    raise Refusal(f"{file} was altered: its arrays do not match their checksum")
  if step not in (None, known["step"]):
    raise Refusal(
      f"{path} is an export of step {known['step']} alone, not of {step}"
    )
  return known["step"], _unpacked(file, arrays, recipe)


def _arrays(parts):
  """{name: array} of what safetensors has found sound."""
  return {
    name: np.frombuffer(part["data"], TYPES[part["dtype"]]).reshape(
      part["shape"]
    )
    for name, part in parts
  }


def _unpacked(file, arrays, recipe):
  """Arrays by name as the network's parameters."""
  like = jax.eval_shape(
    lambda: recipe_lib.init(recipe.objective, recipe.network, recipe.card, 0)
  )
  leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
  want = {name_of(path): leaf for path, leaf in leaves}
  for name in sorted(want.keys() ^ arrays.keys()):
    lacks = "lacks" if name in want else "also holds"
    raise Refusal(f"{file} {lacks} the array {name} of the config's network")
  for name, leaf in want.items():
    if arrays[name].shape != leaf.shape:
      raise Refusal(
        f"{name} has shape {arrays[name].shape} in {file}, and {leaf.shape} in "
        "the config's network"
      )
  return treedef.unflatten(jnp.asarray(arrays[name]) for name in want)


def checksum(arrays, step):
  """A checksum of names, types, shapes and bits, and of the step."""
  total = hashlib.sha256(str(step).encode())
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    total.update(f"{name} {array.dtype} {arrays[name].shape}".encode())
    total.update(array.reshape(-1).view(np.uint8))
  return total.hexdigest()
