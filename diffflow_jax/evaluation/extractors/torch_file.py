"""Arrays of a file that torch.save wrote, without torch and without its pickle.

Since 1.6 the file is a zip of data.pkl and one member of raw bytes for each
storage; before, it was five pickles and then the storages. Both name classes
and functions to be called. Here a name stands for nothing but what is below:
a file can make no other thing run, and can only hold a dict of arrays.
"""

import collections
import io
import math
import pickle
import re
import zipfile

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # of the files before 1.6
_TYPES = {  # little-endian, as every machine that trains writes
  "DoubleStorage": "<f8",
  "FloatStorage": "<f4",
  "HalfStorage": "<f2",
  "LongStorage": "<i8",
  "IntStorage": "<i4",
  "ByteStorage": "u1",
}


class _Storage:
  """Raw numbers; those of an old file come after what refers to them."""

  def __init__(self, dtype, num):
    self.dtype, self.num, self.data = np.dtype(dtype), num, None


class _Tensor:
  """A view of a storage, by what torch calls _rebuild_tensor_v2 with."""

  def __init__(self, storage, offset, shape, strides, *_):
    self.storage, self.offset = storage, offset
    self.shape, self.strides = shape, strides

  def array(self):
    """A copy in C order.

    Raises:
      ValueError: it reaches beyond its storage.
    """
    sizes, num = [self.offset, *self.shape, *self.strides], self.storage.num
    if not all(type(n) is int and n >= 0 for n in sizes):
      raise ValueError("a tensor has no whole sizes")
    steps = zip(self.shape, self.strides, strict=True)
    last = self.offset + sum((n - 1) * stride for n, stride in steps)
    if not 0 < math.prod(self.shape) <= num or last >= num:
      raise ValueError("a tensor reaches beyond its storage")
    flat = np.frombuffer(self.storage.data, self.storage.dtype)[self.offset :]
    strides = [flat.itemsize * stride for stride in self.strides]
    return np.lib.stride_tricks.as_strided(flat, self.shape, strides).copy("C")


class _Reader(pickle.Unpickler):
  """An unpickler that knows three kinds of names, and stops at any other."""

  def __init__(self, file, storage):
    super().__init__(file)
    self.storage = storage

  def persistent_load(self, wanted):
    return self.storage(wanted)

  def find_class(self, module, name):
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _Tensor
    if module == "torch" and name in _TYPES:
      return _TYPES[name]
    raise pickle.UnpicklingError(f"it names {module}.{name}")


def _of_zip(data):
  with zipfile.ZipFile(io.BytesIO(data)) as file:
    (main,) = [
      n for n in file.namelist() if re.fullmatch(r"[^/]+/data\.pkl", n)
    ]
    folder, found = main[: -len("data.pkl")], {}

    def storage(wanted):
      _, dtype, key, _, num = wanted
      if key not in found:
        found[key] = _Storage(dtype, num)
        found[key].data = file.read(f"{folder}data/{key}")
      return found[key]

    return _Reader(io.BytesIO(file.read(main)), storage).load(), found


def _of_stream(data):
  stream, found = io.BytesIO(data), {}

  def storage(wanted):
    _, dtype, key, _, num, view = wanted
    if view is not None:
      raise pickle.UnpicklingError("it holds views of storages")
    return found.setdefault(key, _Storage(dtype, num))

  # magic number, version of the format, machine, tensors, order of storages
  parts = [_Reader(stream, storage).load() for _ in range(5)]
  if parts[0] != _MAGIC:
    raise pickle.UnpicklingError("it begins with no mark of torch's")
  for key in parts[4]:
    found[key].num = int.from_bytes(stream.read(8), "little")
    found[key].data = stream.read(found[key].num * found[key].dtype.itemsize)
  return parts[3], found


def arrays(path, data):
  """{name: array} of the bytes of such a file that holds a dict of tensors.

  Args:
    path: what an error calls it.
  Raises:
    ValueError: another kind of file, one that is cut off, or that names what
      it should not.
  """
  try:
    made, found = (_of_zip if data[:2] == b"PK" else _of_stream)(data)
    for one in found.values():
      if len(one.data) != one.num * one.dtype.itemsize:
        raise ValueError("a storage is cut off")
    if not all(isinstance(t, _Tensor) for t in made.values()):
      raise ValueError("not all that it holds are tensors")
    return {str(name): tensor.array() for name, tensor in made.items()}
  except Exception as error:  # what a pickle of nonsense can raise has no end
    raise ValueError(
      f"{path} must be a dict of tensors that torch.save wrote, and cannot be "
      f"read as one ({error or type(error).__name__})"
    ) from error
