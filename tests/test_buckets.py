"""A run in a bucket: gs:// and s3://, on real servers of this machine."""

import glob
import json
import os
import subprocess
import sys
import threading
import time

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli
from diffflow_jax.store import checkpoints, lock, mirror, paths
from tests import buckets, commands, runs


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
  assert list(paths.chunks(path, 2)) == [b"tw", b"o"]
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
from diffflow_jax.store import paths
paths.write({paths.join(place, "b")!r}, "")
paths.remove({paths.join(place, "a")!r})
"""
  subprocess.run([sys.executable, "-c", code], check=True)
  assert paths.names(place) == ["b"]
  assert not paths.exists(paths.join(place, "a"))


def test_a_copy_is_kept_until_the_object_changes(place, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  path = paths.join(place, "x.npy")
  with pytest.raises(FileNotFoundError):
    paths.fetched(path)
  paths.write(path, "one")
  copy = paths.fetched(path)
  assert copy.startswith(str(tmp_path)) and open(copy).read() == "one"
  assert paths.fetched(path) == copy
  paths.write(path, "two")
  assert open(paths.fetched(path)).read() == "two"
  assert paths.fetched(copy) == copy


def test_data_in_a_bucket_are_as_on_a_disk(place, tmp_path, monkeypatch):
  """A file, a folder of images, a pattern of records."""
  from PIL import Image

  from diffflow_jax.data import checks, folder, numpy_arrays

  records = pytest.importorskip("array_record.python.array_record_module")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  disk = tmp_path / "disk"
  rng = np.random.default_rng(0)
  for i, name in enumerate(("a/0.png", "a/sub/1.png", "b/2.png")):
    (disk / "images" / name).parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(disk / "images" / name)
    writer = records.ArrayRecordWriter(
      str(disk / f"train-{i}.array_record"), ""
    )
    writer.write(name.encode())
    writer.close()
  np.save(disk / "x.npy", rng.integers(0, 256, (5, 8, 8, 3), np.uint8))
  for file in filter(lambda p: p.is_file(), disk.rglob("*")):
    remote = paths.join(place, *file.relative_to(disk).parts)
    paths.write(remote, file.read_bytes())
  for make, name, how in (
    (folder, "images", {"size": 8}),
    (numpy_arrays, "x.npy", {}),
  ):
    here = make(str(disk / name), **how).batch(0, 0, 3)
    there = make(paths.join(place, name), **how).batch(0, 0, 3)
    assert here.keys() == there.keys()
    for key in here:
      assert np.array_equal(here[key], there[key]), (name, key)
  pattern = checks.fetched(paths.join(place, "train-*.array_record"))
  found = sorted(glob.glob(pattern))
  assert [os.path.basename(f) for f in found] == [
    f"train-{i}.array_record" for i in range(3)
  ]
  for file in found:
    written = (disk / os.path.basename(file)).read_bytes()
    assert open(file, "rb").read() == written
  for name in ("y.npy", "y-*.array_record"):
    missing = paths.join(place, name)
    assert checks.fetched(missing) == missing
  with pytest.raises(ValueError, match="there is no file"):
    numpy_arrays(paths.join(place, "y.npy"))


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
from diffflow_jax.store import lock
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


def test_a_missing_package_is_named(monkeypatch):
  import fsspec

  def missing(scheme):
    raise ImportError(scheme)

  monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
  with pytest.raises(cli.Refusal, match="gs:// needs gcsfs: pip install gcsfs"):
    paths.use("gs://bucket/run")


def _items(value):
  params = {
    "w": jnp.full((300, 40), float(value)),
    "b": jnp.arange(5.0) + value,
  }
  return {"params": params, "step": jnp.int32(value)}


def test_checkpoints_are_as_on_a_disk(place, caplog):
  """The newest come back, the damaged and the unfinished never do."""
  directory = paths.join(place, "checkpoints")
  like = jax.eval_shape(lambda: _items(0))
  with checkpoints.Checkpoints(directory, latest=2) as saved:
    for step in (1, 2, 3):
      saved.save(step, _items(step))
    saved.wait()
    assert saved.steps() == [3, 2]
  assert paths.names(directory) == ["2", "3"]
  arrays = [f for f in paths.files_below(directory + "/3") if "/d/" in f]
  victim = max(arrays, key=lambda path: len(paths.read(path)))
  data = bytearray(paths.read(victim))
  data[len(data) // 2] ^= 16
  paths.write(victim, bytes(data))
  paths.write(paths.join(directory, "9", "params", "d", "x"), "half a save")
  with checkpoints.Checkpoints(directory, read_only=True) as saved:
    assert saved.restore(like)[0] == 2
  assert paths.names(directory) == ["2", "3", "9"]  # a reader leaves them
  with checkpoints.Checkpoints(directory, latest=2) as saved:
    step, items = saved.restore(like)
  assert step == 2 and paths.names(directory) == ["2"]
  for got, want in zip(
    jax.tree.leaves(items), jax.tree.leaves(_items(2)), strict=True
  ):
    assert np.array_equal(got, want)
  (aside,) = paths.names(paths.join(place, "damaged"))
  assert aside.startswith("3_")
  assert "checkpoint 3" in caplog.text and "is skipped" in caplog.text


FLAGS = (
  "--config=configs/toy2d.py:smoke",
  "--config.num_steps=30",
  "--config.log_every=7",
  "--config.checkpoint_every=5",
  "--config.sample_every=30",
)


def _refused_to_train(workdir, extra):
  with buckets.read_only(extra) as reader:
    done = commands.run("train", *FLAGS, f"--workdir={workdir}", **reader)
  assert done.returncode == 2, done.stderr
  (error,) = [l for l in done.stderr.splitlines() if l.startswith("error")]
  assert error == (
    f"error: --workdir {workdir}: no permission, it cannot be written"
  )
  assert "Traceback" not in done.stderr and not done.stdout


@pytest.mark.slow
def test_without_permission_training_is_refused(place, bucket):
  _refused_to_train(place, bucket[1])
  assert paths.names(place) == []


def test_a_bucket_that_is_not_there_is_refused(bucket):
  from diffflow_jax.commands import train

  workdir = paths.join(bucket[0] + "2", "run")
  with pytest.raises(cli.Refusal, match="there is no such bucket"):
    train.main(["train", *FLAGS, f"--workdir={workdir}"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole") / "run"
  done = commands.run("train", *FLAGS, f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  return workdir


def _is_same_run(workdir, uninterrupted):
  ours = runs.final_arrays(epath.Path(workdir), 30)
  theirs = runs.final_arrays(uninterrupted, 30)
  assert ours.keys() == theirs.keys() and len(ours) > 50
  for name in ours:
    assert np.array_equal(ours[name], theirs[name]), name
  assert runs.curve(workdir) == runs.curve(uninterrupted)
  assert len(runs.curve(workdir)) == 5
  picture = ("samples", "step_00000030.png")
  here = paths.join(uninterrupted, *picture)
  assert paths.read(paths.join(workdir, *picture)) == paths.read(here)


def _unfinished(workdir):
  """The steps of saves under way, in a bucket."""
  directory = paths.join(workdir, "checkpoints")
  return [
    step
    for step in paths.names(directory)
    if "commit_success.txt" not in paths.names(paths.join(directory, step))
  ]


def _until(what, process, workdir):
  while not what(workdir):
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)


def _has_saved(workdir):
  directory = paths.join(workdir, "checkpoints")
  return len(paths.names(directory)) > len(_unfinished(workdir))


@pytest.mark.slow
def test_a_kill_within_a_save_changes_no_bit(place, uninterrupted):
  flags = (*FLAGS, f"--workdir={place}")
  process = commands.start("train", *flags)
  _until(_has_saved, process, place)
  _until(_unfinished, process, place)
  process.kill()
  process.communicate()
  (half,) = _unfinished(place)
  done = commands.run("train", *flags)
  assert done.returncode == 0, done.stderr
  assert f"resumes at step {int(half) - 5}:" in done.stdout
  assert "damaged" not in done.stderr and "Traceback" not in done.stderr
  _is_same_run(place, uninterrupted)
  boards = paths.names(paths.join(place, "tensorboard"))
  assert len(boards) == 2  # the killed run's stays
  assert not paths.exists(paths.join(place, "compile_cache"))
  run, same = dfj.load(place), dfj.load(uninterrupted)
  samples = [one.sample(8, seed=1) for one in (run, same)]
  assert np.array_equal(*map(np.asarray, samples))


@pytest.mark.slow
def test_a_server_that_is_away_delays_a_save(uninterrupted, tmp_path):
  """It stops in the middle of a save, and comes back."""
  port = buckets.free_port()
  with pytest.MonkeyPatch.context() as patch:
    with buckets.gcs(tmp_path, port) as (url, extra, _):
      for name, value in extra.items():
        patch.setenv(name, value)
      place = paths.join(url, "run")
      process = commands.start("train", *FLAGS, f"--workdir={place}")
      _until(_has_saved, process, place)
      _until(_unfinished, process, place)
    time.sleep(5.0)
    assert process.poll() is None
    with buckets.gcs(tmp_path, port):
      out, _ = process.communicate(timeout=200)
      assert process.returncode == 0, out
      assert "Traceback" not in out
      _is_same_run(place, uninterrupted)
