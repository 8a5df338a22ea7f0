"""Weight files from outside: their checksum, and their arrays by name.

Nothing is unpickled: `torch_file` reads what torch.save wrote, and safetensors
holds nothing but arrays.
"""

import hashlib

import numpy as np

from diffflow_jax.evaluation.extractors import torch_file
from diffflow_jax.store import paths

ANY = "any"  # in the place of a checksum: weights of one's own
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}


def read(path, what, published, known, checksum=None):
  """(arrays by name, SHA-256) of a weight file.

  Args:
    path: on a disk or in a bucket; what: whose weights they are.
    published: where; known: the SHA-256 of what is there, one or several.
    checksum: None for one of the known, how another SHA-256 begins, or ANY.
  Raises:
    ValueError: no such file, another checksum, none of the two kinds.
  """
  try:
    data = paths.read(path)
  except OSError as error:
    raise ValueError(
      f"{path} must be {what}'s weights, as published at {published} (SHA-256 "
      f"{' or '.join(known)}): {paths.reason(error)}"
    ) from error
  found = hashlib.sha256(data).hexdigest()
  wanted = tuple(known) if checksum is None else (checksum,)
  if checksum != ANY and not found.startswith(wanted):
    raise ValueError(
      f"{path} must have a SHA-256 that begins with "
      f"{' or '.join(w[:8] for w in wanted)}, as what is published at "
      f"{published}, but has {found[:16]}… (checksum={ANY} takes weights of "
      "one's own)"
    )
  return _arrays(path, data), found


def _arrays(path, data):
  """{name: array} of the bytes of either kind of file."""
  if data[8:9] != b"{":  # where the header of safetensors begins
    return torch_file.arrays(path, data)
  import safetensors

  try:
    return {
      name: np.frombuffer(one["data"], _TYPES[one["dtype"]]).reshape(
        one["shape"]
      )
      for name, one in safetensors.deserialize(data)
    }
  except (safetensors.SafetensorError, ValueError, KeyError) as error:
    raise ValueError(
      f"{path} cannot be read as a safetensors file of floats ({error})"
    ) from error


def check_shapes(path, what, arrays, wanted):
  """Refuses arrays of other names or shapes than wanted, {name: shape}.

  Raises:
    ValueError: it names the first that differs, and says how many do.
  """
  here = {name: array.shape for name, array in arrays.items()}
  odd = [n for n in sorted({**wanted, **here}) if wanted.get(n) != here.get(n)]
  if odd:
    raise ValueError(
      f"{path} must hold the {len(wanted)} arrays of {what}, but differs in "
      f"{len(odd)}: {odd[0]} is {here.get(odd[0])}, not {wanted.get(odd[0])}"
    )
