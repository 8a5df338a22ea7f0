"""Files as torch.save writes them, made by hand: a zip, and what was before."""

import io
import pickle
import struct
import zipfile

_DICT = b"ccollections\nOrderedDict\n)R"


def _word(text):
  return b"X" + struct.pack("<I", len(text)) + text.encode()


def _whole(number):
  return b"J" + struct.pack("<i", number)


def _tuple(*numbers):
  return b"(" + b"".join(_whole(n) for n in numbers) + b"t"


def pickled(arrays, view=b"", strides=None, num=None):
  """Opcodes of {name: tensor of float32}, storages named 0, 1, …"""
  parts = [b"\x80\x02", _DICT, b"("]
  for i, (name, a) in enumerate(arrays.items()):
    steps = strides or [s // a.itemsize for s in a.strides]
    parts += [_word(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("]
    parts += [_word("storage"), b"ctorch\nFloatStorage\n", _word(str(i))]
    parts += [_word("cpu"), _whole(num or a.size), view, b"tQ", _whole(0)]
    parts += [_tuple(*a.shape), _tuple(*steps), b"\x89", _DICT, b"tR"]
  return b"".join(parts) + b"u."


def zipped(arrays, main=None, **how):
  """The bytes of a file since torch 1.6, float32 arrays in C order."""
  made = io.BytesIO()
  with zipfile.ZipFile(made, "w") as file:
    file.writestr("archive/data.pkl", main or pickled(arrays, **how))
    file.writestr("archive/version", "3\n")
    for i, a in enumerate(arrays.values()):
      file.writestr(f"archive/data/{i}", a.tobytes())
  return made.getvalue()


def streamed(arrays):
  """The bytes of a file before that."""
  keys = [str(i) for i in range(len(arrays))]
  head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
  parts = [pickle.dumps(x, 2) for x in head]
  parts += [pickled(arrays, view=b"N"), pickle.dumps(keys, 2)]
  for a in arrays.values():
    parts += [struct.pack("<q", a.size), a.tobytes()]
  return b"".join(parts)
