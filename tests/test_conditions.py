"""Conditions of every kind, from the data to the step."""

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffflow_jax as dfj
from diffflow_jax import data, networks
from diffflow_jax.data import splits
from diffflow_jax.objective import densities, objectives
from diffflow_jax.process import conditions
from diffflow_jax.process.conditions import Condition
from diffflow_jax.training import (
  ema,
  state as state_lib,
)
from tests import conditions as made

DATA = made.arrays()
KNOWN = conditions.of(DATA)
FLOW = objectives.flow_matching()


# What a data set says of its conditions


def test_the_label_comes_first_and_need_not_be_named():
  label = Condition("label", (), 4)
  plain = types.SimpleNamespace(num_classes=4)
  assert conditions.of(plain) == {"label": label}
  assert conditions.of(types.SimpleNamespace(num_classes=0)) == {}
  vector = Condition("vector", (2,))
  own = types.SimpleNamespace(num_classes=4, conditions={"v": vector})
  assert list(conditions.of(own).items()) == [("label", label), ("v", vector)]
  assert list(KNOWN) == ["label", "power", "text", "small"]
  assert [c.kind for c in KNOWN.values()] == [
    "label", "vector", "sequence", "image"
  ]  # fmt: skip
  assert KNOWN["text"].shape == (3, 5) and KNOWN["small"].shape == (2, 2, 1)


def test_a_batch_holds_what_is_given_row_by_row():
  small = np.arange(NUM_SMALL := 5 * 4, dtype=np.uint8).reshape(5, 2, 2) * 12
  text = np.arange(5 * 2 * 3, dtype=np.float64).reshape(5, 2, 3)
  said = np.arange(10).reshape(5, 2) % 3 > 0
  made_of = data.Arrays(
    np.zeros((5, 4, 4, 1), np.float32),
    given={
      "style": np.array([0, 2, 1, 0, 2]),
      "small": small,
      "text": (text, said),
    },
  )
  batch = made_of.take(np.array([3, 1]))
  assert NUM_SMALL == 20 and batch["small"].shape == (2, 2, 2, 1)
  np.testing.assert_allclose(
    batch["small"][..., 0], small[[3, 1]] / 127.5 - 1.0, atol=1e-6
  )
  assert batch["text"].dtype == np.float32
  np.testing.assert_array_equal(batch["text"], text[[3, 1]])
  np.testing.assert_array_equal(batch["text_mask"], said[[3, 1]])
  np.testing.assert_array_equal(batch["style"], [0, 2])
  assert made_of.conditions["style"] == Condition("label", (), 3)
  again = dataclasses.replace(made_of, scale=2.0)
  np.testing.assert_array_equal(
    again.take(np.array([3, 1]))["text"], text[[3, 1]]
  )
  # a subset and a split take their conditions along
  one, two = splits.split(DATA, num=8)
  whole = {
    x.tobytes(): p
    for x, p in zip(DATA.x, DATA.given["power"].value, strict=True)
  }
  for part in (one, two, splits.subset(two, np.array([2, 0]))):
    batch = part.take(np.arange(2))
    for x, power in zip(batch["x"], batch["power"], strict=True):
      np.testing.assert_array_equal(whole[x.tobytes()], power)
    assert conditions.of(part) == KNOWN


X = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
F = np.ones((6, 3), np.float32)


@pytest.mark.parametrize(
  "given,message",
  [
    ([F], "given must be a dict of arrays by name"),
    ({"label": F}, "the condition label is given as labels"),
    ({"x": F}, "cannot be called 'x': that is taken"),
    ({"a_mask": F}, "cannot be called 'a_mask'"),
    ({"a b": F}, "name must be a word, not 'a b'"),
    ({"v": F[:4]}, "v has 4 rows for 6 examples"),
    ({"v": F.astype(int)}, r"v holds int64, .*array.astype\(np.float32\)"),
    ({"v": F > 0}, "v holds bool, but must be floats"),
    ({"v": F[:, 0]}, r"one number for each example: .*v\[:, None\]"),
    ({"v": np.array(["a"] * 6)}, "v holds texts: texts are given as the numb"),
    ({"v": [[1.0], [1.0, 2.0]] * 3}, "v is no array: .*padded, and given wi"),
    ({"v": np.ma.masked_array(F)}, r"masked array: give \(array, mask\)"),
    ({"v": None}, "v is None: leave it out, or give .array, mask., the mask"),
    ({"v": 1.0}, "v must have a row for each example"),
    ({"v": (F, F, F)}, r"v must be an array, or \(array, mask\)"),
    ({"v": (F, F > 0)}, r"the mask of v must have shape \(6,\), not \(6, 3\)"),
    ({"v": (F, np.ones(6))}, r"must hold bools, .*mask.astype\(bool\)"),
    ({"k": (np.arange(6), F > 0)}, "k is a label, which has no mask"),
    ({"k": np.arange(1, 7)}, "k starts at 1, but classes count from 0"),
    ({"i": np.ones((6, 3, 3, 1))}, "grid of 3x3, .*not divide x's of 4x4"),
    ({"i": np.ones((6, 8, 8, 1))}, "grid of 8x8, which does not divide"),
    ({"i": np.ones((6, 3, 32, 32))}, "channels came first: give np.moveaxis"),
    ({"i": np.ones((6, 1, 2, 2))}, "channels came first: give np.moveaxis"),
    ({"i": F[:, :2].repeat(2, 1).reshape(6, 2, 2)}, "may be a sequence or, be"),
    ({"v": F[:, :0]}, r"a vector cannot have the shape \(0,\)"),
    ({"i": np.ones((6, 2, 2, 1), int)}, "i holds int64, but must be floa"),
  ],
)
def test_conditions_that_cannot_be_meant_are_refused(given, message):
  with pytest.raises(ValueError, match=message) as caught:
    data.Arrays(X, given=given)
  assert "\n" not in str(caught.value)


def test_what_a_shape_does_not_say_has_to_be_said():
  series, coarse = np.ones((6, 8, 2), np.float32), np.ones((6, 4, 2))
  series[0] = 0.0
  make = lambda **kinds: data.Arrays(
    series, layout="NLC", given={"low": coarse}, kinds=kinds
  )
  with pytest.raises(ValueError, match='say kinds={"low": "sequence"} or "im'):
    make()
  assert make(low="image").conditions["low"] == Condition("image", (4, 2))
  assert make(low="sequence").conditions["low"].kind == "sequence"
  with pytest.raises(ValueError, match="is a sequence or image, not 'vector'"):
    make(low="vector")
  with pytest.raises(ValueError, match="kinds names 'high', which is not giv"):
    make(high="image")
  grey = np.arange(24.0).reshape(6, 2, 2)
  for kind, shape in (("image", (2, 2, 1)), ("sequence", (2, 2))):
    small = data.Arrays(X, given={"low": grey}, kinds={"low": kind})
    assert small.conditions["low"] == Condition(kind, shape)
    told = small.take(np.arange(6))["low"]
    np.testing.assert_array_equal(told.reshape(grey.shape), grey)
  # no picture of X: one side is 2 of 4, the other 1 of 4; or 3 of 4
  for other in (grey[:, :1], np.ones((6, 3, 3))):
    known = data.Arrays(X, given={"text": other}).conditions
    assert known["text"] == Condition("sequence", other.shape[1:])
  with pytest.raises(ValueError, match="flip would turn x and not its image"):
    made.arrays(flip=True)


def test_conditions_of_files(tmp_path, caplog):
  batch = DATA.take(np.arange(made.NUM))
  np.savez(tmp_path / "all.npz", **batch)
  path = str(tmp_path / "all.npz")
  read = data.numpy_arrays(path, conditions=["text", "power"])
  assert list(read.conditions) == ["label", "text", "power"]
  one, two = (d.take(np.array([5, 2])) for d in (read, DATA))
  for name in ("x", "label", "text", "text_mask", "power"):
    np.testing.assert_array_equal(one[name], two[name])
  assert 'small, which nothing reads: conditions=["small"]' in caplog.text
  for name in ("x", "text", "text_mask"):
    np.save(tmp_path / f"{name}.npy", batch[name])
  files = {n: str(tmp_path / f"{n}.npy") for n in ("text", "text_mask")}
  read = data.numpy_arrays(str(tmp_path / "x.npy"), conditions=files)
  np.testing.assert_array_equal(
    read.take(np.arange(3))["text_mask"], batch["text_mask"][:3]
  )
  for where, asked, message in (
    (path, ["txt"], "must have an array txt; it has x"),
    (path, "text", "must be a list of names, not 'text'"),
    (path, files, "conditions must be names of arrays of its own"),
    (str(tmp_path / "x.npy"), ["text"], "must be a dict of .npy files"),
    (str(tmp_path / "x.npy"), {"text": path}, "must be a .npy file of text"),
  ):
    with pytest.raises(ValueError, match=message):
      data.numpy_arrays(where, conditions=asked)


def test_a_source_reads_conditions_with_its_examples():
  image = lambda i: np.full((4, 4), 10 * i, np.uint8)
  said = lambda i: {"text": (np.full((2, 1), 1.0 * i), np.array([True, i > 0]))}
  make = lambda read, **more: data.Source(
    3, read, lambda i: f"picture {i}", 4, channels=1, **more,
    conditions={"text": Condition("sequence", (2, 1))},
  )  # fmt: skip
  source = make(lambda i: (image(i), 0, said(i)))
  batch = source.subset(np.array([2, 0])).take(np.arange(2))
  np.testing.assert_array_equal(batch["text"][:, 0, 0], [2, 0])
  np.testing.assert_array_equal(batch["text_mask"], [[1, 1], [1, 0]])
  for read, message in (
    (lambda i: (image(i), 0), "picture 0: the condition text is missing"),
    (
      lambda i: (image(i), 0, {"text": np.ones(2)}),
      r"must have shape \(2, 1\)",
    ),
    (
      lambda i: (image(i), 0, {"text": np.ones((2, 1), int)}),
      "picture 0: text holds int64, but must be floats",
    ),
    (
      lambda i: (image(i), 0, {"text": (np.ones((2, 1)), np.ones(1, bool))}),
      r"the mask of text must have shape \(2,\), not \(1,\)",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      make(read).take(np.arange(1))


# The look before training


@dataclasses.dataclass
class Own:
  """A data set of one's own: what its batches hold, it says."""

  rows: dict
  known: dict
  num_classes = 0
  shape = (4, 4, 1)

  conditions = property(lambda self: self.known)
  to_float = staticmethod(jnp.asarray)
  augment = staticmethod(lambda key, x: x)
  __len__ = lambda self: 6

  def take(self, index):
    return {name: rows[index] for name, rows in {"x": X, **self.rows}.items()}

  def batch(self, seed, step, size, *rest):
    return self.take((np.arange(size) + step) % 6)


V, T = Condition("vector", (3,)), Condition("sequence", (2, 3))
N = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32)
NAN = np.where(np.arange(6)[:, None, None] == 4, np.nan, N)


@pytest.mark.parametrize(
  "rows,known,message",
  [
    ({}, {"v": V}, "a batch has no v, which conditions name"),
    ({"v": F[:, :2]}, {"v": V}, r"shape \(6, 2\) for 6 examples of shape \(3,"),
    ({"v": F.astype(int)}, {"v": V}, "v must hold floats, not int64: gi"),
    ({"k": F[:, 0]}, {"k": Condition("label", (), 2)}, "must hold integers, n"),
    (
      {"k": np.arange(6)},
      {"k": Condition("label", (), 5)},
      "example 5 has k 5; it must be 0 to 4",
    ),
    ({}, {"label": Condition("label", (), 5)}, "label has 5 classes, but num"),
    (
      {"i": np.ones((6, 3, 3, 1))},
      {"i": Condition("image", (3, 3, 1))},
      "i is on a grid of 3x3, which does not divide x's of 4x4",
    ),
    ({"t": N, "t_mask": np.ones((6, 2))}, {"t": T}, "t_mask must be bools of"),
    ({"t": N, "t_mask": np.zeros((6, 2), bool)}, {"t": T}, "no example says t"),
    ({"t": NAN}, {"t": T}, "t holds NaN .* in 1 of 6 .* is example 4"),
  ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_at_the_look(rows, known, message):
  (refusal,) = dfj.inspect(Own(rows, known)).refusals
  assert re.search(message, refusal) and "\n" not in refusal, refusal


@pytest.mark.parametrize(
  "rows,known,message",
  [
    ({"t": N}, {}, "a batch holds t, which nothing reads: conditions must na"),
    ({"v": F}, {"v": V}, "v is the same in all examples: it tells nothing"),
    (
      {"t": N.astype(np.float64)},
      {"t": T},
      "t is float64, and becomes float32",
    ),
    ({"t": 1e-4 * N}, {"t": T}, "t has a standard deviation of .*e-05"),
    ({"t": 1e4 * N}, {"t": T}, "where networks expect about 1: scale it"),
  ],
)
def test_what_is_odd_is_warned_of(rows, known, message):
  found = dfj.inspect(Own(rows, known))
  assert not found.refusals
  assert re.search(message, "|".join(found.warnings)), found.warnings


def test_the_summary_says_what_a_network_is_told():
  hidden = np.where(np.arange(6)[:, None, None] == 4, np.nan, N)
  mask = np.arange(6)[:, None] * np.ones(2) < [4, 3]
  found = dfj.inspect(Own({"t": hidden, "t_mask": mask}, {"t": T}))
  assert not found.refusals, "NaN where nothing is said is nobody's affair"
  said = N[mask]
  text = (
    f"t: sequence (2, 3), said of 67%, 1 to 2 long, mean {said.mean():.3g}, "
    f"std {said.std():.3g}"
  )
  assert text in found.summary() and found.as_dict()["conditions"] == {
    "t": text
  }
  with pytest.raises(ValueError, match="conditions of .* must be a dict, as"):
    dfj.inspect(Own({}, [V]))


def test_held_out_data_of_other_conditions_are_refused():
  other = data.Arrays(DATA.x, DATA.labels)
  with pytest.raises(
    ValueError, match="its condition .* is None, the training"
  ):
    splits.held_out(DATA, dict(num=5, split="x"), lambda settings: other)


# The step


def test_conditions_are_dropped_by_their_own_rates_and_all_together():
  n, rates = 40_000, {"label": 0.2, "power": 0.5, "text": 0.1}
  cond = conditions.from_batch(KNOWN, DATA.take(np.arange(n) % made.NUM))
  told = cond["text"].mask.any(axis=1)
  got = conditions.dropped(KNOWN, cond, jax.random.key(3), rates, 0.25)
  lost = {
    "label": np.asarray(got["label"] == 3),
    "power": np.asarray(~got["power"].mask),
    "small": np.asarray(~got["small"].mask),
    "text": np.asarray(told & ~got["text"].mask.any(axis=1))[told],
  }
  all_of, at = lost["small"], {**rates, "small": 0.0}  # small: together alone
  near = lambda share, want, num: abs(share - want) < 4 * np.sqrt(0.25 / num)
  for name, which in lost.items():
    want = 1 - (1 - 0.25) * (1 - at[name])
    assert near(which.mean(), want, which.size), name
  for name in ("label", "power"):  # those that lose all lose these
    assert (lost[name] >= all_of).all()
  assert (lost["text"] >= all_of[told]).all()
  rest = ~all_of  # and the others lose them independently
  both = (lost["label"] & lost["power"])[rest].mean()
  assert near(both, 0.2 * 0.5, rest.sum())
  # what is kept is as it was
  np.testing.assert_array_equal(got["small"].value, cond["small"].value)
  kept = ~lost["label"]
  np.testing.assert_array_equal(got["label"][kept], cond["label"][kept])


def test_dropping_one_more_moves_no_other():
  cond = conditions.from_batch(KNOWN, DATA.take(np.arange(made.NUM)))
  draw = lambda rates: conditions.dropped(KNOWN, cond, jax.random.key(0), rates)
  one, two = draw({"power": 0.5}), draw({"power": 0.5, "text": 0.5})
  np.testing.assert_array_equal(one["power"].mask, two["power"].mask)
  assert one["label"] is cond["label"] and one["text"] is cond["text"]


TX = optax.sgd(0.1)
AVERAGES = ema.exponential(0.5)


def _step(network, dataset, **settings):
  step = state_lib.make_train_step(
    FLOW, network.apply, TX, dataset, AVERAGES,
    **{"seed": 0, "label_dropout": 0.2, **settings},
  )  # fmt: skip
  state = state_lib.create(FLOW, network, TX, dataset, AVERAGES, 0)
  return jax.jit(step), state


def _same(one, two, atol=1e-6):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(a, b, atol=atol)


def test_a_step_of_labels_alone_is_the_one_written_out_by_hand():
  """SGD on flow matching's u-MSE, of draws by the key of the step."""
  points = data.Arrays(X[:, 0, :2, 0], np.arange(6) % 3)
  net = networks.MLP(width=8, depth=1, num_classes=3)
  step, state = _step(net, points)
  # an MLP's output is zero at first: let the labels count
  rng = np.random.default_rng(2)
  random = lambda p: rng.normal(0, 0.3, p.shape).astype(np.float32)
  state = state.replace(params=jax.tree.map(random, state.params))
  batch = points.batch(0, 0, 32)
  got = step(state, batch).params

  keys = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 4)
  t, x = densities.uniforms(keys[0], 32), batch["x"]
  eps = jax.random.normal(keys[1], x.shape)
  drop = jax.random.bernoulli(keys[2], 0.2, (32,))
  label = jnp.where(drop, 3, batch["label"])
  assert 0 < drop.sum() < 32

  def loss(params, label):
    z = (1 - t)[:, None] * x + t[:, None] * eps
    u_hat = net.apply(params, z, 2.0 * jnp.log((1 - t) / t), label)
    return jnp.mean((u_hat - (eps - x)) ** 2)

  gradient = jax.jit(jax.grad(loss))
  moved = lambda label: jax.tree.map(
    lambda p, g: p - 0.1 * g, state.params, gradient(state.params, label)
  )
  _same(got, moved(label))
  with pytest.raises(AssertionError):
    _same(got, moved(batch["label"]))


def test_parts_and_several_steps_are_the_same_with_every_kind():
  network = made.Net(num_classes=3, conditions=KNOWN)
  how = dict(dropout={"power": 0.3, "text": 0.3}, drop_all=0.1)
  whole, state = _step(network, DATA, **how)
  parts, _ = _step(network, DATA, **how, accumulation=4)
  batches = [DATA.batch(0, n, 16) for n in range(2)]
  want = state
  for batch in batches:
    want = whole(want, batch)
  got = state
  for batch in batches:
    got = parts(got, batch)
  _same(got.params, want.params)
  stacked = jax.tree.map(lambda *rows: np.stack(rows), *batches)
  got = jax.jit(state_lib.several(whole, 2))(state, stacked)
  _same(got.params, want.params)
  # every condition is learned from: its weights moved
  for name in ("power", "text", "small", "Embed_0"):
    before, after = (
      jax.tree.leaves(s.params["params"][name])[0] for s in (state, want)
    )
    assert np.abs(before - after).max() > 1e-4, name


def test_a_network_draws_its_dropout_anew_in_every_part_and_step():
  seen = []

  def apply(params, z, logsnr, cond, rngs=None):
    jax.debug.callback(
      lambda k: seen.append(k.tobytes()), jax.random.key_data(rngs["dropout"])
    )
    return params["w"] * z

  network = types.SimpleNamespace(
    init=lambda *args: {"w": jnp.ones(())}, apply=apply
  )
  step, state = _step(network, DATA, rngs=("dropout",), accumulation=2)
  for n in range(2):
    state = step(state, DATA.batch(0, n, 8))
  jax.effects_barrier()
  assert len(set(seen)) == 4
