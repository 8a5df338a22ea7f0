"""Rows of arrays that are kept in files as they are made.

A file holds `size` rows and appears whole or not at all, so what was killed
goes on with the first that is missing, and nothing is in memory but one of
them. A file that is damaged is made anew.
"""

import io
import os
import tempfile
import zipfile

import numpy as np

from diffflow_jax.store import paths


class Rows:
  """Rows 0 … num - 1 of some arrays, {name: (num, ...)}.

  Args:
    folder: on a disk or in a bucket, or None for one that goes with this.
    make: first -> {name: (rows, ...)}, of `size` rows from first on, or of as
      many as there are.
    num: how many rows; size: of a file.
  """

  def __init__(self, folder, make, num, size):
    self.num, self._size, self._make = num, size, make
    self._own = None if folder else tempfile.TemporaryDirectory()
    self._folder = folder or self._own.name
    self._arrays = {}

  def made(self, drawn=lambda num: None):
    """Makes what is missing; drawn is told how many rows there are then."""
    for first in range(0, self.num, self._size):
      if not paths.exists(self._path(first)):
        self._chunk(first)
      drawn(min(self._size, self.num - first))

  def stream(self, name):
    """The rows of one array, a file's at a time."""
    for first in range(0, self.num, self._size):
      yield self._chunk(first)[name][: self.num - first]

  def array(self, name):
    """One array as a whole, on disk and not in memory (np.memmap)."""
    if name not in self._arrays:
      self._own = self._own or tempfile.TemporaryDirectory()
      path, whole, first = os.path.join(self._own.name, f"{name}.npy"), None, 0
      for piece in self.stream(name):
        if whole is None:
          whole = np.lib.format.open_memmap(
            path, "w+", piece.dtype, (self.num, *piece.shape[1:])
          )
        whole[first : first + len(piece)] = piece
        first += len(piece)
      self._arrays[name] = whole
    return self._arrays[name]

  def _path(self, first):
    return paths.join(self._folder, f"{first:09d}.npz")

  def _chunk(self, first):
    path = self._path(first)
    try:
      with np.load(io.BytesIO(paths.read(path)), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
    except FileNotFoundError:
      pass
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError):
      pass  # cut off by something that does not know of whole files
    made = self._make(first)
    file = io.BytesIO()
    np.savez(file, **made)
    if not paths.is_remote(self._folder):
      os.makedirs(self._folder, exist_ok=True)
    paths.write(path, file.getvalue())
    return made
