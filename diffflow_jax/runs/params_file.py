"""Parameters as a safetensors file: no pickle, and a checksum of their own."""

import hashlib
import json

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import recipe as recipe_lib
from diffflow_jax.runs.digest import name_of

NAME = "params.safetensors"
FORMAT = "diffflow_jax 1"


def is_in(path):
  """Whether a folder holds such a file: an export, and not a run's workdir."""
  return (epath.Path(path) / NAME).exists()


def pack(params, step):
  """A pytree as the bytes of a safetensors file, with step and checksum."""
  from safetensors import numpy as safetensors

  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  # safetensors takes contiguous arrays alone
  arrays = {name_of(p): np.asarray(x, order="C") for p, x in leaves}
  about = {
    "format": FORMAT,
    "step": str(step),
    "sha256": _sha256(arrays, step),
  }
  return bytes(safetensors.save(arrays, metadata=about))


def about(data):
  """The metadata of a safetensors file's bytes: {str: str}."""
  size = int.from_bytes(data[:8], "little")
  return json.loads(data[8 : 8 + size]).get("__metadata__", {})


def read(path, recipe, step=None):
  """(step, parameters) of an export.

  Args:
    recipe: what its config names; step: None, or what the step has to be.
  Raises:
    Refusal: the file is damaged, of another network, or of another step.
  """
  import safetensors
  from safetensors import numpy as safetensors_numpy

  file = epath.Path(path) / NAME
  data = file.read_bytes()
  try:
    arrays, known = safetensors_numpy.load(data), about(data)
  except (safetensors.SafetensorError, ValueError, KeyError) as error:
    raise Refusal(f"{file} is damaged or cut off: {error}") from error
  if known.get("format") != FORMAT:
    raise Refusal(
      f"{file} has the format {known.get('format')!r}, and this version of "
      f"diffflow_jax reads {FORMAT!r}"
    )
  if known.get("sha256") != _sha256(arrays, known.get("step")):
    raise Refusal(f"{file} was altered: its arrays do not match their checksum")
  if step not in (None, int(known["step"])):
    raise Refusal(
      f"{path} is an export of step {known['step']} alone, not of {step}"
    )
  return int(known["step"]), _unpacked(file, arrays, recipe)


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


def _sha256(arrays, step):
  """A checksum of names, types, shapes and bits, and of the step."""
  total = hashlib.sha256(str(step).encode())
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    total.update(f"{name} {array.dtype} {arrays[name].shape}".encode())
    total.update(array.reshape(-1).view(np.uint8))
  return total.hexdigest()
