"""A run in a bucket: gs:// and s3://, on real servers of this machine."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from diffflow_jax import cli, paths
from diffflow_jax.runs import lock, mirror
from tests import buckets


@pytest.fixture(scope="module", params=buckets.KINDS)
def bucket(request):
  """The URL of a bucket, and the environment of those who use it."""
  with buckets.KINDS[request.param]() as (url, extra, _):
    with pytest.MonkeyPatch.context() as patch:
      for name, value in extra.items():
        patch.setenv(name, value)
      yield url, extra


@pytest.fixture
def place(bucket, request):
  """A folder of a bucket for one test."""
  return paths.join(bucket[0], request.node.name.partition("[")[0])


def test_an_object_is_written_read_listed_and_removed(place):
  path = paths.join(place, "a", "b.txt")
  assert not paths.exists(path) and not paths.is_directory(place)
  assert paths.names(place) == [] and paths.files_below(place) == []
  with pytest.raises(FileNotFoundError):
    paths.read(path)
  paths.write(path, "one")
  paths.write(path, b"two")
  assert paths.read(path) == b"two" and paths.exists(path)
  assert paths.is_directory(place) and paths.names(place) == ["a"]
  assert paths.files_below(place) == [path]
  paths.remove(path)
  paths.remove(path)
  assert not paths.exists(path)


def test_of_two_who_create_an_object_one_does(place):
  path = paths.join(place, "lock")
  created = []
  threads = [
    threading.Thread(
      target=lambda i=i: created.append((paths.create(path, str(i)), i))
    )
    for i in range(4)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  winners = [i for won, i in created if won]
  assert len(created) == 4 and len(winners) == 1
  assert paths.read(path) == str(winners[0]).encode()


def test_what_others_write_is_seen(place):
  """Listings are not remembered."""
  paths.write(paths.join(place, "a"), "")
  assert paths.names(place) == ["a"]
  code = f"""
from diffflow_jax import paths
paths.write({paths.join(place, "b")!r}, "")
paths.remove({paths.join(place, "a")!r})
"""
  subprocess.run([sys.executable, "-c", code], check=True)
  assert paths.names(place) == ["b"]
  assert not paths.exists(paths.join(place, "a"))


def test_a_copy_is_kept_until_the_object_changes(place, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  path = paths.join(place, "x.npy")
  paths.write(path, "one")
  copy = paths.fetched(path)
  assert copy.startswith(str(tmp_path)) and open(copy).read() == "one"
  assert paths.fetched(path) == copy
  paths.write(path, "two")
  assert open(paths.fetched(path)).read() == "two"
  assert paths.fetched(copy) == copy


def _holders(place):
  path = paths.join(place, "lock")
  return [
    json.loads(paths.read(paths.join(path, n))) for n in paths.names(path)
  ]


def test_a_second_job_is_refused_and_a_released_lock_is_free(
  place, monkeypatch
):
  monkeypatch.setattr(lock, "BEAT", 0.5)
  monkeypatch.setattr(lock, "LEASE", 30.0)
  with lock.alone(place) as check:
    with pytest.raises(cli.Refusal, match="another process trains in"):
      with lock.alone(place):
        pass
    check()
    assert [h["over"] for h in _holders(place)] == [False]
  assert [h["over"] for h in _holders(place)] == [True]
  with lock.alone(place):
    assert paths.names(paths.join(place, "lock")) == ["00000002"]


def _die_with_the_lock(place, bucket):
  code = f"""
import os
from diffflow_jax.runs import lock
with lock.alone({place!r}):
  os._exit(9)
"""
  subprocess.run([sys.executable, "-c", code], env={**os.environ, **bucket[1]})


def test_the_lock_of_a_process_that_died_here_is_free(place, bucket):
  _die_with_the_lock(place, bucket)
  assert [h["over"] for h in _holders(place)] == [False]
  start = time.monotonic()
  with lock.alone(place):
    assert time.monotonic() - start < lock.LEASE / 4


def test_the_lock_of_a_silent_machine_is_taken_over(place, bucket, monkeypatch):
  _die_with_the_lock(place, bucket)
  monkeypatch.setattr(lock, "_machine", lambda: "another")
  monkeypatch.setattr(lock, "LEASE", 2.0)
  start = time.monotonic()
  with lock.alone(place):
    assert time.monotonic() - start > 2.0
    assert len(_holders(place)) == 1


def test_who_was_taken_over_is_told(place, monkeypatch):
  """A machine that slept for longer than its lease must not save."""
  monkeypatch.setattr(lock, "BEAT", 0.3)
  with pytest.raises(cli.Failure, match="another process trains in .* now"):
    with lock.alone(place) as check:
      check()
      paths.create(paths.join(place, "lock", "00000002"), "{}")
      time.sleep(1.5)
      check()
  assert paths.names(paths.join(place, "lock"))[-1] == "00000002"
  assert paths.read(paths.join(place, "lock", "00000002")) == b"{}"


def test_of_many_who_find_a_dead_lock_one_gets_it(place, bucket, monkeypatch):
  _die_with_the_lock(place, bucket)
  monkeypatch.setattr(lock, "BEAT", 0.5)
  got, refused = [], []
  done = threading.Event()

  def job():
    try:
      with lock.alone(place):
        got.append(1)
        done.wait(30)
    except cli.Refusal:
      refused.append(1)

  threads = [threading.Thread(target=job) for _ in range(4)]
  for thread in threads:
    thread.start()
  while len(refused) < 3 and len(got) < 2:
    time.sleep(0.1)
  done.set()
  for thread in threads:
    thread.join()
  assert len(got) == 1 and len(refused) == 3


def test_files_that_grow_are_copied_and_gone_on_with(place):
  remote = paths.join(place, "metrics.jsonl")
  with mirror.Mirror(place, "metrics.jsonl") as m:
    with open(os.path.join(m.folder, "metrics.jsonl"), "a") as file:
      file.write("one\n")
      file.flush()
      assert m.wait("metrics.jsonl")
      assert paths.read(remote) == b"one\n"
      file.write("two\n")
    os.makedirs(os.path.join(m.folder, "samples"))
    with open(os.path.join(m.folder, "samples", "a.png"), "wb") as file:
      file.write(b"\x89PNG")
  assert not os.path.exists(m.folder)
  assert paths.read(remote) == b"one\ntwo\n"
  assert paths.read(paths.join(place, "samples", "a.png")) == b"\x89PNG"
  with mirror.Mirror(place, "metrics.jsonl") as m:
    assert open(os.path.join(m.folder, "metrics.jsonl")).read() == "one\ntwo\n"


def test_a_scheme_that_is_not_known_is_refused():
  for url in ("hdfs://a/b", "gs://", "http://x/y"):
    with pytest.raises(cli.Refusal, match="gs://BUCKET/… or s3://BUCKET/…"):
      paths.use(url)


def test_a_missing_package_names_our_extra(monkeypatch):
  import fsspec

  def missing(scheme):
    raise ImportError(scheme)

  monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
  with pytest.raises(cli.Refusal, match=r"pip install 'diffflow_jax\[gcs\]'"):
    paths.use("gs://bucket/run")
