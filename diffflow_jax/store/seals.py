"""Records that tell whether they are still what was written.

A sealed record is JSON with the checksum of all that it says beside it. One of
them lies in every checkpoint, with the checksum of each of its files: a bit
that flips anywhere is found before anything reads the arrays, on any number of
devices and processes, since files know nothing of these.
"""

from concurrent.futures import ThreadPoolExecutor
import hashlib
import json
import os

from diffflow_jax.store import paths

SEAL = "blake2b"
CHECKSUMS = "checksums.json"  # the record of a directory
OPTIONAL = ("by",)  # not said by older versions


def seal(values):
  """The JSON text of a dict, with its checksum."""
  return json.dumps({**values, SEAL: _hash_of(values)}, indent=2) + "\n"


def unseal(text):
  """The dict of a text of `seal`, or of one that has no checksum.

  Raises:
    ValueError: it says something else by now.
  """
  try:
    values = json.loads(text)
  except RecursionError as error:
    raise ValueError("it is no record") from error
  if not isinstance(values, dict):
    raise ValueError(f"it must hold an object of names, not {values!r:.40}")
  if values.pop(SEAL, None) not in (None, _hash_of(values)):
    raise ValueError("it does not match its checksum")
  return values


def _hash_of(values):
  values = {key: value for key, value in values.items() if key != SEAL}
  text = json.dumps(values, sort_keys=True).encode()
  return hashlib.blake2b(text, digest_size=16).hexdigest()


def write(directory, but="", **said):
  """Seals what is said of a directory, with the checksums of its files."""
  directory = os.fspath(directory)
  found = [
    os.path.relpath(path, directory).replace(os.sep, "/")
    for path in paths.files_below(directory)
  ]
  names = [name for name in found if name != but]
  files = dict(zip(names, _hash_all(directory, names), strict=True))
  for error in files.values():
    if isinstance(error, OSError):
      raise error
  paths.write(paths.join(directory, CHECKSUMS), seal({**said, "files": files}))


def read(directory):
  """What was said of a directory, and under "files" the checksums of its files.

  Raises:
    ValueError: nothing that can be trusted.
  """
  try:
    said = unseal(paths.read(paths.join(directory, CHECKSUMS)))
    return {name: said.get(name) for name in OPTIONAL} | {
      name: said[name] for name in ("step", "loss", "files")
    }
  except (OSError, ValueError, KeyError) as error:
    reason = getattr(error, "strerror", None) or error
    raise ValueError(f"its {CHECKSUMS} cannot be read: {reason}") from error


def check(directory, files):
  """Raises ValueError unless files {name: checksum} are as they were."""
  hashes = _hash_all(directory, files)
  for name, found in zip(files, hashes, strict=True):
    if isinstance(found, OSError):
      raise ValueError(f"its {name} cannot be read: {paths.reason(found)}")
    if found != files[name]:
      raise ValueError(f"its {name} does not match its checksum")


def _hash_all(directory, names):
  """The checksums of files, each in hexadecimal digits or the OSError of it."""

  def one(name):
    digest = hashlib.blake2b(digest_size=16)
    try:
      for chunk in paths.chunks(paths.join(directory, name)):
        digest.update(chunk)
    except OSError as error:
      return error
    return digest.hexdigest()

  with ThreadPoolExecutor(8) as pool:  # buckets answer late
    return list(pool.map(one, names))
