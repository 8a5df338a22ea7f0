"""tf.train.Example, read from the bytes of its protocol buffer.

    Example   1: Features            Feature    1: BytesList 1: bytes
    Features  1: map name, Feature              2: FloatList 1: float
    map       1: name, 2: Feature               3: Int64List 1: varint

https://protobuf.dev/programming-guides/encoding
"""

import struct

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
KINDS = {1: "bytes", 2: "float", 3: "int64"}


def _varint(data, at):
  """(value, next position) of a base-128 number, low groups first."""
  value = shift = 0
  while True:
    byte = data[at]
    value |= (byte & 0x7F) << shift
    at, shift = at + 1, shift + 7
    if byte < 0x80:
      return value, at


def _fields(data):
  """(number, wire type, value) of each field of a message."""
  at = 0
  while at < len(data):
    tag, at = _varint(data, at)
    number, wire = tag >> 3, tag & 7
    if wire == VARINT:
      value, at = _varint(data, at)
    elif wire in (BYTES, FIXED64, FIXED32):
      if wire == BYTES:
        size, at = _varint(data, at)
      else:
        size = 8 if wire == FIXED64 else 4
      if at + size > len(data):
        raise ValueError("the message is truncated")
      value, at = data[at : at + size], at + size
    else:
      raise ValueError(f"unknown wire type {wire}")
    yield number, wire, value


def _signed(value):
  return value - (1 << 64) if value >> 63 else value


def _values(kind, data):
  """The list of a BytesList, FloatList or Int64List, packed or not."""
  values = []
  for _, wire, value in _fields(data):
    if kind == "bytes":
      values.append(bytes(value))
    elif kind == "float":
      values.extend(struct.unpack(f"<{len(value) // 4}f", value))
    elif wire == VARINT:
      values.append(_signed(value))
    else:
      at = 0
      while at < len(value):
        one, at = _varint(value, at)
        values.append(_signed(one))
  return values


def parse_example(data):
  """{name: list of bytes, floats or integers} of a serialised Example.

  Raises:
    ValueError, IndexError: it is not one.
  """
  features = {}
  for _, _, message in _fields(data):
    for _, _, entry in _fields(message):
      parts = {number: value for number, _, value in _fields(entry)}
      for number, _, values in _fields(parts.get(2, b"")):
        name = bytes(parts.get(1, b"")).decode()
        features[name] = _values(KINDS[number], values)
  return features
