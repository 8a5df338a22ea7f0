"""Records that tell whether they are still what was written.

A sealed record is JSON with the checksum of all that it says beside it. One of
them lies in every checkpoint, with the checksum of each of its files: a bit that
flips anywhere is found before anything reads the arrays, on any number of
devices and processes, since files know nothing of these.
"""

import hashlib
import json

from etils import epath

SEAL = "blake2b"
CHECKSUMS = "checksums.json"  # the record of a directory
CHUNK = 1 << 22  # bytes in memory at a time


def seal(values):
  """The JSON text of a dict, with its checksum."""
  return json.dumps({**values, SEAL: _hash_of(values)}, indent=2) + "\n"


def unseal(text):
  """The dict of a text of `seal`.

  Raises:
    ValueError: it says something else by now.
  """
  values = json.loads(text)
  if not isinstance(values, dict) or SEAL not in values:
    raise ValueError("it has no checksum")
  if values.pop(SEAL) != _hash_of(values):
    raise ValueError("it does not match its checksum")
  return values


def _hash_of(values):
  text = json.dumps(values, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=16).hexdigest()


def write(directory, but="", **said):
  """Seals what is said of a directory, with the checksums of its files."""
  directory = epath.Path(directory)
  files = {
    name: hash_file(directory / name)
    for name in sorted(_walk(directory))
    if name != but
  }
  text = seal({**said, "files": files})
  (directory / CHECKSUMS).write_text(text)


def read(directory):
  """What was said of a directory, and under "files" the checksums of its files.

  Raises:
    ValueError: nothing that can be trusted.
  """
  try:
    return unseal((epath.Path(directory) / CHECKSUMS).read_text())
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or error
    raise ValueError(f"its {CHECKSUMS} cannot be read: {reason}") from error


def check(directory, files):
  """Raises ValueError unless files {name: checksum} are as they were."""
  for name, known in files.items():
    try:
      same = hash_file(epath.Path(directory) / name) == known
    except OSError as error:
      reason = error.strerror or error
      raise ValueError(f"its {name} cannot be read: {reason}") from error
    if not same:
      raise ValueError(f"its {name} does not match its checksum")


def hash_file(path):
  """The checksum of a file, as hexadecimal digits."""
  digest = hashlib.blake2b(digest_size=16)
  with epath.Path(path).open("rb") as file:
    while chunk := file.read(CHUNK):
      digest.update(chunk)
  return digest.hexdigest()


def _walk(directory, prefix=""):
  """The names of all files below a directory, as a/b/c."""
  for path in directory.iterdir():
    if path.is_dir():
      yield from _walk(path, f"{prefix}{path.name}/")
    else:
      yield prefix + path.name
