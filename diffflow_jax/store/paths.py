"""Files on a disk, or objects of a bucket: gs://BUCKET/… and s3://BUCKET/….

Buckets are read and written by fsspec, with gcsfs or s3fs. An object appears
whole or not at all, cannot be appended to, and is a directory's only by name.
"""

import contextlib
import errno
import hashlib
import logging
import os
import posixpath
import shutil

from diffflow_jax.cli import Refusal

log = logging.getLogger("diffflow_jax")

# the package that knows a scheme, and our extra that installs it
SCHEMES = {"gs": "gcsfs", "s3": "s3fs"}


def is_remote(path):
  """Whether a path is a URL."""
  return "://" in os.fspath(path)


def join(path, *names):
  """The path of a name in a directory."""
  path = os.fspath(path)
  return (posixpath if is_remote(path) else os.path).join(path, *names)


def exists(path):
  """Whether there is a file, or a directory with something in it."""
  if not is_remote(path):
    return os.path.exists(path)
  with told(path):
    return _filesystem(path).exists(path)


def is_directory(path):
  """Whether there is a directory; in a bucket, one with something in it."""
  if not is_remote(path):
    return os.path.isdir(path)
  with told(path):
    return _filesystem(path).isdir(path)


def read(path):
  """The bytes of a file."""
  if not is_remote(path):
    with open(path, "rb") as file:
      return file.read()
  with told(path):
    return _filesystem(path).cat_file(path)


def chunks(path, size=1 << 22):
  """The bytes of a file, some at a time."""
  if not is_remote(path):
    with open(path, "rb") as file:
      while chunk := file.read(size):
        yield chunk
    return
  path, start = os.fspath(path), 0
  with told(path):
    filesystem = _filesystem(path)
    whole = filesystem.size(path)
    while start < whole:
      end = min(start + size, whole)
      yield filesystem.cat_file(path, start=start, end=end)
      start = end


def write(path, data):
  """Writes text or bytes so that a kill leaves the old file or the new one."""
  data = data.encode() if isinstance(data, str) else data
  if is_remote(path):
    with told(path, writes=True):
      _filesystem(path).pipe_file(path, data)
    return
  partial = f"{path}.partial"
  with open(partial, "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def create(path, data):
  """Writes an object of a bucket unless it is there; whether it was not.

  Of many who try, one succeeds: the bucket decides.
  """
  try:
    with told(path, writes=True):
      _filesystem(path).pipe_file(path, data.encode(), mode="create")
  except FileExistsError:
    return False
  return True


def names(directory):
  """The sorted names in a directory; none if it is not there."""
  directory = os.fspath(directory)
  try:
    if not is_remote(directory):
      return sorted(os.listdir(directory))
    with told(directory):
      found = _filesystem(directory).ls(directory, detail=False)
  except FileNotFoundError:
    return []
  return sorted(filter(None, (posixpath.basename(one) for one in found)))


def files_below(directory):
  """The sorted paths of all files in a directory and below it."""
  if not is_remote(directory):
    return sorted(
      os.path.join(where, name)
      for where, _, names in os.walk(directory)
      for name in names
    )
  scheme = directory.partition("://")[0]
  with told(directory):
    found = _filesystem(directory).find(directory)
  return sorted(f"{scheme}://{path}" for path in found)


def move(path, target):
  """Renames a file or a directory; in a bucket, one object after another."""
  path, target = os.fspath(path), os.fspath(target)
  if not is_remote(path):
    os.rename(path, target)
    return
  with told(path, writes=True):
    filesystem = _filesystem(path)
    for one in files_below(path):
      filesystem.cp_file(one, target + one.removeprefix(path))
    filesystem.rm(path, recursive=True)


def remove(path):
  """Removes an object of a bucket, if it is there."""
  with contextlib.suppress(FileNotFoundError), told(path, writes=True):
    _filesystem(path).rm_file(path)


def fetched(path):
  """A file, a directory or a pattern of files on this machine's disk.

  That of a bucket is copied into the user's cache, once; if any of its objects
  changes, it is copied anew. A pattern comes back as one of the copies.

  Raises:
    FileNotFoundError: a bucket has no such thing.
  """
  if not path or not is_remote(path):
    return path
  scheme = path.partition("://")[0]
  folder, name = posixpath.split(path.rstrip("/"))
  with told(path):
    filesystem = _filesystem(path)
    search = filesystem.glob if "*" in name else filesystem.find
    objects = search(path, detail=True)
  if not objects:
    raise FileNotFoundError(errno.ENOENT, "there is none", path)
  versions = sorted(
    (one, info["size"], str(info.get("ETag") or info.get("etag")))
    for one, info in objects.items()
  )
  key = hashlib.sha256(repr([path, versions]).encode()).hexdigest()[:32]
  kept = os.path.join(cache_directory(), "data", key)
  if not os.path.isdir(kept):
    total = sum(size for _, size, _ in versions)
    log.info("copying %s, %.3g MB, to %s", path, total / 1e6, kept)
    partial = f"{kept}.{os.getpid()}.partial"
    below = [
      os.path.relpath(f"{scheme}://{one}", folder) for one, _, _ in versions
    ]
    copies = [os.path.join(partial, *one.split("/")) for one in below]
    for copy in copies:
      os.makedirs(os.path.dirname(copy), exist_ok=True)
    with told(path):
      filesystem.get([one for one, _, _ in versions], copies)
    try:
      os.rename(partial, kept)
    except OSError:  # another process was faster
      shutil.rmtree(partial, ignore_errors=True)
  return os.path.join(kept, name)


def cache_directory():
  """Where this user's machine keeps what can be made again."""
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(home, "diffflow_jax")


def reason(error):
  """An OSError, or what a path cannot be, in a few words."""
  said = getattr(error, "strerror", None) or str(error)
  return (said.splitlines() or [type(error).__name__])[0]


def use(url):
  """Makes a bucket's scheme known to all who read and write it by fsspec.

  Raises:
    Refusal: no such scheme, no name of a bucket, or its package is missing.
  """
  scheme, _, rest = url.partition("://")
  if scheme not in SCHEMES or not rest.strip("/"):
    known = " or ".join(f"{name}://BUCKET/…" for name in SCHEMES)
    raise Refusal(f"{url!r} must be a path or {known}")
  package = SCHEMES[scheme]
  # they log, with a traceback, what they then raise
  for name in (package, "aiobotocore"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  try:
    import fsspec

    kind = fsspec.get_filesystem_class(scheme)
  except ImportError as error:
    raise Refusal(
      f"{scheme}:// needs {package}: pip install {package}"
    ) from error
  # what others write must be seen: no listing is remembered
  protocols = kind.protocol
  for name in (protocols,) if isinstance(protocols, str) else protocols:
    fsspec.config.conf.setdefault(name, {}).setdefault(
      "use_listings_cache", False
    )


def _filesystem(url):
  import fsspec

  use(url)
  return fsspec.filesystem(url.partition("://")[0])


@contextlib.contextmanager
def told(path, writes=False):
  """Whatever a bucket's client raises, as an OSError of one line."""
  try:
    yield
  except FileNotFoundError as error:
    if not writes:
      raise
    raise OSError(errno.ENOENT, "there is no such bucket") from error
  except OSError as error:
    if isinstance(error, PermissionError) or "Forbidden" in str(error):
      what = "written" if writes else "read"
      raise PermissionError(
        errno.EACCES, f"no permission, it cannot be {what}"
      ) from error
    raise
  except Refusal:
    raise
  except Exception as error:  # each client has its own
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise OSError(errno.EIO, lines[0][:200]) from error
