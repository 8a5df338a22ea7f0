"""The classifier that the library trains itself, from config to features."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from diffflow_jax import cli, config_files, data, evaluation
from diffflow_jax.commands import train_features
from diffflow_jax.evaluation.extractors import classifier, classifier_fit
from diffflow_jax.runs import card as cards
from tests import commands

SMOKE = f"{commands.ROOT}/configs/features_digits.py:smoke"
HELD_OUT = data.digits("test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A trained classifier, as the command leaves it."""
  folder = str(tmp_path_factory.mktemp("features") / "digits")
  train_features.main(["x", f"--config={SMOKE}", f"--workdir={folder}"])
  return folder


@pytest.fixture(scope="module")
def features(folder):
  return evaluation.features_of(f"classifier:{folder}", cards.of(HELD_OUT))


def test_it_tells_digits_that_it_has_not_seen(features, folder):
  u = evaluation.to_bytes(HELD_OUT.to_float(HELD_OUT.x))
  made = features(u)
  assert made.shape == (359, features.dims) and made.dtype == np.float32
  predicted = features.logits(made).argmax(1)
  got = evaluation.label_agreement(predicted, HELD_OUT.labels, 10).overall
  assert got == features.accuracy  # as the record says
  assert got.value > 0.4  # of 60 steps; 0.1 by chance
  assert features.classes == HELD_OUT.class_names
  assert features.metric == "fd_classifier" and features.shape == (8, 8, 1)
  sha256 = json.loads(open(f"{folder}/classifier.json").read())["sha256"]
  assert features.fingerprint == f"classifier {sha256}"
  # floats become the same bytes, and batches do not matter
  np.testing.assert_array_equal(features(HELD_OUT.to_float(HELD_OUT.x)), made)
  np.testing.assert_allclose(features(u[:3]), made[:3], atol=1e-5)


def test_classes_of_other_data_are_no_labels(folder):
  other = data.Arrays(HELD_OUT.x, HELD_OUT.labels % 3, 3, max_value=16)
  found = evaluation.features_of(f"classifier:{folder}", cards.of(other))
  assert found.classes == () and found.accuracy is None
  assert found.logits is not None
  with pytest.raises(ValueError, match=r"takes images of shape \(8, 8, 1\)"):
    evaluation.features_of(
      f"classifier:{folder}", cards.Card((16, 16, 1), num_classes=10)
    )


def test_a_damaged_folder_is_said(folder, tmp_path):
  for name in (classifier.PARAMS, classifier.CARD):
    (tmp_path / name).write_bytes(open(f"{folder}/{name}", "rb").read())
  text = (tmp_path / classifier.CARD).read_text()
  (tmp_path / classifier.CARD).write_text(text.replace('"num"', '"nul"'))
  with pytest.raises(ValueError, match="cannot be read: .* checksum"):
    evaluation.classifier(str(tmp_path))
  (tmp_path / classifier.CARD).write_text(text)
  size = (tmp_path / classifier.PARAMS).stat().st_size
  with open(tmp_path / classifier.PARAMS, "r+b") as file:
    file.seek(size - 4)
    file.write(b"abcd")
  with pytest.raises(ValueError, match="must have a SHA-256 that begins with"):
    evaluation.classifier(str(tmp_path))


def test_the_record_of_a_folder_comes_last(folder, tmp_path):
  """What was killed in between is no classifier."""
  params, about = classifier.read(folder)
  about.pop("sha256")
  with pytest.raises(TypeError):
    classifier.write(str(tmp_path), params, {**about, "config": object()})
  assert [p.name for p in tmp_path.iterdir()] == [classifier.PARAMS]
  with pytest.raises(ValueError, match="must hold classifier.json"):
    evaluation.classifier(str(tmp_path))


def test_images_move_by_whole_pixels():
  u = np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5, 1)
  keys = jax.random.split(jax.random.key(0), 80)
  wide = np.pad(u, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
  moved = [
    {
      wide[n, i : i + 5, j : j + 5].tobytes()
      for i in range(3)
      for j in range(3)
    }
    for n in range(2)
  ]
  found = [set(), set()]
  for images in np.asarray(
    jax.vmap(lambda key: classifier_fit.shifted(key, u, 1))(keys)
  ):
    for n, image in enumerate(images):
      found[n].add(image.tobytes())
  assert found == moved  # all nine of each, and no other
  np.testing.assert_array_equal(classifier_fit.shifted(keys[0], u, 0), u)


@pytest.mark.parametrize(
  "flags, said",
  [
    (["num_steps=0"], "config.num_steps must be an integer >= 1, not 0"),
    (["shift=-1"], "config.shift must be an integer >= 0, not -1"),
    (["network.depth=3"], "config.network.depth is not a setting of Classif"),
    (["ema=0.9"], "config.ema: known: batch_size,"),
    (["held_out.num=0"], "config.held_out must name examples"),
    (
      ["held_out.split=train"],
      "config.held_out: 100% of the held-out .* are training examples",
    ),
    (["dataset.name=moons"], "images of 1 or 3 channels with labels, not of"),
  ],
)
def test_configs_that_cannot_work(flags, said, tmp_path):
  flags = [f"--config.{flag}" for flag in flags]
  with pytest.raises(cli.Refusal, match=said):
    train_features.main(
      ["x", f"--config={SMOKE}", f"--workdir={tmp_path}/x", *flags]
    )
  assert not list(tmp_path.iterdir())


def test_a_classifier_is_not_overwritten(folder):
  with pytest.raises(cli.Refusal, match="holds a classifier: take another"):
    train_features.main(["x", f"--config={SMOKE}", f"--workdir={folder}"])


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_configs_are_whole_and_show_their_command(name):
  path = commands.ROOT / "configs" / f"features_{name}.py"
  config = config_files.load(f"{path}:smoke")
  assert set(config) == set(train_features.FIELDS)
  assert isinstance(config, ml_collections.ConfigDict)
  train_features.resolved(config)
  assert f"--config=configs/{path.name}" in path.read_text()
  with pytest.raises(cli.Refusal, match="has the size smoke, not 'huge'"):
    config_files.load(f"{path}:huge")
