"""Checkpoints: whole or skipped, never half."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import cli
from diffflow_jax.store import checkpoints, orbax_errors, seals, storage
from diffflow_jax.store.digest import digest
from tests import commands


def _items(value):
  params = {
    "w": jnp.full((300, 40), float(value)),
    "b": jnp.arange(5.0) + value,
  }
  return {"params": params, "step": jnp.int32(value)}


def _like():
  return jax.eval_shape(lambda: _items(0))


def _save(directory, steps):
  with checkpoints.Checkpoints(directory, latest=2) as saved:
    for step in steps:
      saved.save(step, _items(step))


def _restore(directory, like=None, **kwargs):
  with checkpoints.Checkpoints(directory, **kwargs) as saved:
    return saved.restore(like or _like())


def _largest_file(directory):
  files = [p for p in pathlib.Path(directory).rglob("*") if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def test_the_newest_of_the_kept_ones_comes_back(tmp_path):
  _save(tmp_path / "c", (1, 2, 3))
  step, items = _restore(tmp_path / "c")
  assert step == 3
  for got, want in zip(
    jax.tree.leaves(items), jax.tree.leaves(_items(3)), strict=True
  ):
    assert np.array_equal(got, want)
  assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["2", "3"]


def test_no_checkpoint_is_none(tmp_path):
  assert _restore(tmp_path / "c") is None


def test_a_part_can_be_read_alone(tmp_path):
  _save(tmp_path / "c", (1,))
  like = {"step": _like()["step"]}
  assert _restore(tmp_path / "c", like, read_only=True)[1] == {"step": 1}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty"])
def test_a_damaged_newest_one_is_skipped_with_a_warning(
  tmp_path, caplog, capfd, damage
):
  _save(tmp_path / "c", (1, 2))
  victim = _largest_file(tmp_path / "c" / "2" / "params")
  if damage == "truncate":
    os.truncate(victim, victim.stat().st_size // 2)
  elif damage == "flip":
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 16
    victim.write_bytes(bytes(data))
  elif damage == "remove":
    victim.unlink()
  else:
    for path in (tmp_path / "c" / "2").rglob("*"):
      if path.is_file():
        path.write_bytes(b"")
  # a reader leaves it where it is, the run moves it out of its way
  assert _restore(tmp_path / "c", read_only=True)[0] == 1
  assert (tmp_path / "c" / "2").exists()
  assert _restore(tmp_path / "c")[0] == 1
  assert not (tmp_path / "c" / "2").exists()
  assert len(list((tmp_path / "damaged").glob("2_*"))) == 1
  assert "checkpoint 2" in caplog.text and "is skipped" in caplog.text
  assert "Traceback" not in capfd.readouterr().err
  _save(tmp_path / "c", (2,))
  assert _restore(tmp_path / "c")[0] == 2


def test_another_networks_checkpoint_is_refused_and_left_alone(tmp_path):
  _save(tmp_path / "c", (1,))
  like = _like()
  like["params"]["w"] = jax.ShapeDtypeStruct((300, 41), jnp.float32)
  with pytest.raises(checkpoints.OtherArrays, match=r"w has shape \(300, 40\)"):
    _restore(tmp_path / "c", like)
  del like["params"]["w"]
  with pytest.raises(checkpoints.OtherArrays, match="also holds .*params.w"):
    _restore(tmp_path / "c", like)
  with pytest.raises(checkpoints.OtherArrays, match="holds no ema"):
    _restore(tmp_path / "c", {"ema": like})
  assert _restore(tmp_path / "c")[0] == 1


def test_the_digest_sees_every_bit_and_the_order():
  base = {"a": jnp.arange(8.0), "b": jnp.array([True, False])}
  seen = {int(digest(base))}
  for i in range(8):
    bits = base["a"].view(jnp.uint32).at[i].add(1).view(jnp.float32)
    seen.add(int(digest({**base, "a": bits})))
  seen.add(int(digest({**base, "a": base["a"][::-1]})))
  seen.add(int(digest({**base, "b": ~base["b"]})))
  for signs in ([0, 1], [2, 5], [0, 1, 2, 3]):  # top bits in pairs
    flipped = base["a"] + 1.0
    flipped = flipped.at[jnp.array(signs)].multiply(-1.0)
    seen.add(int(digest({**base, "a": flipped})))
  two = {"a": jnp.zeros(3), "b": jnp.ones(3)}
  swapped = {"a": jnp.ones(3), "b": jnp.zeros(3)}
  seen |= {int(digest(t)) for t in (two, swapped)}
  assert len(seen) == 16


def test_the_best_and_every_nth_stay_beside_the_latest(tmp_path):
  losses = {1: 5.0, 2: 1.0, 3: 4.0, 4: None, 5: 3.0, 6: 2.0, 7: None}
  with checkpoints.Checkpoints(tmp_path, latest=1, every=3, best=2) as saved:
    for step, loss in losses.items():
      saved.save(step, {"a": {"x": jnp.ones(3)}}, loss)
  with checkpoints.Checkpoints(tmp_path, latest=1, every=3, best=2) as saved:
    assert saved.steps() == [7, 6, 3, 2]  # latest; best and third; third; best
    saved.save(8, {"a": {"x": jnp.ones(3)}}, 0.5)  # goes by losses on disk too
    assert saved.wait() and saved.steps() == [8, 6, 3, 2]
    assert saved.restore({"a": {"x": jnp.ones(3)}}, 3)[0] == 3


def test_when_none_can_be_read_nothing_is_moved_and_nobody_starts_anew(
  tmp_path, monkeypatch
):
  """A file system that fails for a moment makes all look damaged."""
  directory = tmp_path / "checkpoints"
  with checkpoints.Checkpoints(directory) as saved:
    for step in (1, 2):
      saved.save(step, _items(step))

  def fails(self, step, like):
    raise ValueError("Input/output error")

  with checkpoints.Checkpoints(directory) as saved:
    with monkeypatch.context() as patch:
      patch.setattr(checkpoints.Checkpoints, "load", fails)
      with pytest.raises(checkpoints.Damaged, match="none was moved"):
        saved.restore(_items(0))
    assert saved.restore(_items(0))[0] == 2
  assert not (tmp_path / "damaged").exists()


def test_late_errors_of_orbaxs_threads_are_not_shown_and_others_are(
  monkeypatch,
):
  shown = []
  for name in ("excepthook", "unraisablehook"):
    monkeypatch.setattr(sys, name, lambda *args: shown.append(args))
  orbax_errors.hush()
  for text in ("Event loop is closed", "something else"):
    error = RuntimeError(text)
    sys.excepthook(RuntimeError, error, None)
    sys.unraisablehook(types.SimpleNamespace(exc_value=error))
  assert len(shown) == 2 and str(shown[0][1]) == "something else"


SAVES = """
import gc, json, os, resource, sys, threading
import jax.numpy as jnp
from diffflow_jax.store import checkpoints

limit, num = map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
items = {"params": {"w": jnp.ones((30, 40))}, "step": jnp.int32(0)}
seen = []
with checkpoints.Checkpoints(sys.argv[1], latest=2) as saved:
  for step in range(1, num + 1):
    saved.save(step, items)
    assert saved.wait(), step
    files = len(os.listdir("/proc/self/fd"))
    seen.append((files, threading.active_count()))
    if step == 10:
      gc.collect()
      objects = len(gc.get_objects())
  assert saved.steps() == [num, num - 1]
gc.collect()
more = (len(gc.get_objects()) - objects) / num
print(json.dumps([seen[9], max(seen), seen[-1], more]))
"""


@pytest.mark.parametrize(
  "limit, num", [(64, 30), pytest.param(256, 400, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_saves_leave_no_file_open_and_no_thread_behind(tmp_path, limit, num):
  """Orbax's newer interface: 3 descriptors and a thread each (0.12.8)."""
  done = subprocess.run(
    [sys.executable, "-c", SAVES, tmp_path / "c", str(limit), str(num)],
    cwd=commands.ROOT,
    env=commands.environment(),
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0 and not done.stderr, done.stderr
  early, most, last, objects = json.loads(done.stdout)
  assert most[0] <= early[0] + 3 and most[1] <= early[1] + 3, done.stdout
  assert last[0] <= early[0] + 1 and last[1] <= early[1] + 1, done.stdout
  # TensorStore's statistics, which Orbax asks for: 48 of each save (0.1.86)
  assert objects < 12, done.stdout


def test_a_renamed_checkpoint_is_not_taken_for_another_step(tmp_path, caplog):
  _save(tmp_path / "c", (1, 2))
  (tmp_path / "c" / "2").rename(tmp_path / "c" / "7")
  for how in ({"read_only": True}, {}):
    caplog.clear()
    assert _restore(tmp_path / "c", **how)[0] == 1
    assert "it is checkpoint 2 under another name" in caplog.text


def test_a_file_in_the_place_of_a_directory_is_a_sentence(tmp_path, caplog):
  (tmp_path / "c").write_text("")
  for read_only in (False, True):
    with pytest.raises(cli.Refusal, match="c must be a directory"):
      checkpoints.Checkpoints(tmp_path / "c", read_only=read_only)
  (tmp_path / "c").unlink()
  _save(tmp_path / "c", (1, 2))
  shutil.rmtree(tmp_path / "c" / "2")
  (tmp_path / "c" / "2").write_text("")
  assert _restore(tmp_path / "c")[0] == 1  # and it is out of step 2's way
  assert "is no checkpoint and is moved away" in caplog.text
  _save(tmp_path / "c", (2,))
  os.truncate(_largest_file(tmp_path / "c" / "2"), 10)
  shutil.rmtree(tmp_path / "damaged")
  (tmp_path / "damaged").write_text("")
  with pytest.raises(cli.Failure, match="damaged must be a directory"):
    _restore(tmp_path / "c")


def test_a_reader_takes_the_newer_one_of_a_run_that_removes_the_old(
  tmp_path, caplog, monkeypatch
):
  """`sample` beside a run with keep.latest=1, at the worst moments."""
  directory = tmp_path / "c"
  with checkpoints.Checkpoints(directory, latest=1) as training:
    training.save(1, _items(1))
    assert training.wait()
    steps = iter(range(2, 9))

    def train_on(work):
      def before(*args):
        if (step := next(steps, None)) is not None:
          training.save(step, _items(step))
          assert training.wait()
        return work(*args)

      return before

    with checkpoints.Checkpoints(directory, read_only=True) as saved:
      monkeypatch.setattr(seals, "read", train_on(seals.read))
      monkeypatch.setattr(seals, "check", train_on(seals.check))
      step, items = saved.restore(_like())
  assert step >= 7 and items["step"] == step
  assert not caplog.text


def test_a_reader_lists_anew_where_all_it_listed_was_removed(
  tmp_path, monkeypatch
):
  directory = tmp_path / "c"
  with checkpoints.Checkpoints(directory, latest=1) as training:
    training.save(1, _items(1))
    assert training.wait()
    with checkpoints.Checkpoints(directory, read_only=True) as saved:
      looks, look = [], storage.is_finished

      def late(path):
        looks.append(path.name)
        if len(looks) == 1:
          training.save(2, _items(2))
          assert training.wait()
        return look(path)

      monkeypatch.setattr(storage, "is_finished", late)
      assert saved.restore(_like())[0] == 2
  assert looks[:2] == ["1", "2"]


def test_nothing_is_saved_where_the_workdir_has_vanished(tmp_path, caplog):
  witness = tmp_path / "run" / "config.json"
  witness.parent.mkdir()
  witness.write_text("{}")
  directory = tmp_path / "run" / "checkpoints"
  with checkpoints.Checkpoints(directory, witness=witness) as saved:
    saved.save(1, _items(1))
    assert saved.wait()
    shutil.rmtree(witness.parent)
    saved.save(2, _items(2))
    assert "run has vanished" in caplog.text
    assert not witness.parent.exists()
    with pytest.raises(checkpoints.SaveFailed, match="run has vanished"):
      saved.finish(3, _items(3), tries=2, seconds=0.0)
    witness.parent.mkdir()  # the share is back
    witness.write_text("{}")
    saved.finish(4, _items(4))
  assert _restore(directory, read_only=True)[0] == 4


def _save_as_before(directory, step, items, loss=None):
  """As versions until 2026 did: a digest of arrays, and Orbax's metrics."""
  from orbax.checkpoint import v1 as ocp

  crc = {name: np.asarray(digest(tree)) for name, tree in items.items()}
  stored = {**{k: {k: v} for k, v in items.items()}, "digest": crc}
  with ocp.training.Checkpointer(os.path.abspath(directory)) as saved:
    saved.save_checkpointables(
      step, stored, metrics=None if loss is None else {"loss": loss}
    )


@pytest.mark.parametrize("damage", [None, "arrays", "renamed", "metrics"])
def test_checkpoints_of_before_are_read_and_checked(tmp_path, caplog, damage):
  directory = tmp_path / "c"
  for step, loss in ((1, 1.0), (2, 2.0), (3, 3.0)):
    _save_as_before(directory, step, _items(step), loss)
  newest = 3
  if damage == "arrays":
    victim = _largest_file(directory / "3" / "params")
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 16
    victim.write_bytes(bytes(data))
    newest = 2
  elif damage == "renamed":
    (directory / "3").rename(directory / "5")
    newest = 2
  elif damage == "metrics":
    (directory / "1" / "metrics" / "metrics").write_text('{"lo')
  with checkpoints.Checkpoints(directory, latest=1, best=1) as saved:
    step, items = saved.restore(_like())
    assert step == newest and items["step"] == step
    assert ("is skipped" in caplog.text) == (newest == 2)
    saved.save(9, _items(9))
    assert saved.wait()
    best = 2 if damage == "metrics" else 1
    assert saved.steps() == [9, best]
  assert ("loss of checkpoint 1" in caplog.text) == (damage == "metrics")


@pytest.mark.skipif(os.geteuid() != 0, reason="root may mount a small disk")
def test_a_full_disk_costs_a_warning_and_is_tried_again(tmp_path, caplog):
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("no mounts here")
  try:
    with checkpoints.Checkpoints(disk / "c", latest=1) as saved:
      saved.save(1, _items(1))
      assert saved.wait()
      filler = disk / "filler"
      with contextlib.suppress(OSError):
        filler.write_bytes(bytes(4 << 20))
      for step in (2, 3):
        saved.save(step, _items(step))
        saved.wait()
      assert caplog.text.count("training goes on: No space left") == 2
      assert saved.restore(_like())[0] == 1
      filler.unlink()
      saved.save(4, _items(4))
      assert saved.wait() and saved.steps() == [4]
    names = sorted(p.name for p in (disk / "c").iterdir())
    assert names == ["4"]
  finally:
    subprocess.run(["umount", str(disk)], check=True)


FOREVER = """
import sys
import jax.numpy as jnp
from diffflow_jax.store import checkpoints

with checkpoints.Checkpoints(sys.argv[1], latest=1) as saved:
  items = {"params": {"w": jnp.zeros((300, 40))}, "step": jnp.int32(0)}
  step, items = saved.restore(items) or (0, items)
  assert items["step"] == step and (items["params"]["w"] == step).all()
  print("from", step, flush=True)
  while True:
    step += 1
    items = {"params": {"w": jnp.full((300, 40), float(step))}, "step": step}
    saved.save(step, {**items, "step": jnp.int32(step)})
"""


@pytest.mark.slow
def test_twenty_kills_leave_a_whole_checkpoint(tmp_path):
  """kill -9 while it saves, removes and renames; none is damaged by it."""
  rng, last, halves = random.Random(0), 0, 0
  for _ in range(20):
    process = subprocess.Popen(
      [sys.executable, "-c", FOREVER, tmp_path / "c"],
      cwd=commands.ROOT,
      env=commands.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    line = process.stdout.readline()
    assert line.startswith("from "), line + process.stdout.read()
    assert int(line.split()[1]) >= last
    last = int(line.split()[1])
    time.sleep(rng.uniform(0.05, 1.0))
    process.kill()
    process.communicate()
    names = [p.name for p in (tmp_path / "c").iterdir()]
    halves += any(not name.isdecimal() for name in names)
  assert last > 20 and halves > 5
  assert not (tmp_path / "damaged").exists()
  with checkpoints.Checkpoints(tmp_path / "c", read_only=True) as saved:
    like = {"step": jnp.int32(0)}
    assert saved.restore(like)[0] >= last
