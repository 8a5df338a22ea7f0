"""Evaluation while training: its numbers, the best checkpoint, exact resume."""

import jax
import ml_collections
import numpy as np
import pytest
import scipy.linalg

import diffflow_jax as dfj
from diffflow_jax import cli, scoring
from diffflow_jax.commands import train
from diffflow_jax.config_files import load
from diffflow_jax.store import checkpoints
from diffflow_jax.training import evaluating, metrics
from diffflow_jax.training.resolve import resolve
from tests import runs

# of a learning rate that soon ruins what it learns: the best comes early
FLAGS = (
  "--config=configs/toy2d.py:smoke",
  "--config.network.width=8",
  "--config.learning_rate=0.1",
  "--config.clip_norm=100.0",
  "--config.ema.decay=0.5",
  "--config.checkpoint_every=5",
  "--config.sampler.num_samples=8",
  "--config.evaluate.every=5",
  "--config.evaluate.num_samples=300",
  "--config.keep.latest=1",
  "--config.keep.best=1",
  "--config.keep.by=eval/fd_coordinates",
)


def trained(workdir):
  train.main(["train", *FLAGS, f"--workdir={workdir}"])
  return workdir


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  return trained(tmp_path_factory.mktemp("evaluated") / "run")


def frechet(a, b):
  """Of two sets of points, by the matrix square root."""
  cov = [np.cov(x, rowvar=False) for x in (a, b)]
  root = scipy.linalg.sqrtm(cov[0] @ cov[1]).real
  gap = a.mean(0) - b.mean(0)
  return float(gap @ gap + np.trace(cov[0] + cov[1] - 2.0 * root))


def test_the_line_has_what_samples_of_that_step_give(whole):
  lines = {line["step"]: line for line in runs.curve(whole)}
  assert list(lines) == [5, 10, 15, 20]
  run = dfj.load(whole, step=20)
  samples = run.sample(300, seed=0)
  moons = resolve(run.config).dataset
  real = moons.to_float(moons.batch(123, 0, 20_000)["x"])
  ours = lines[20]["eval/fd_coordinates"]
  # the reference is 10,000 other draws
  np.testing.assert_allclose(frechet(samples, real), ours, rtol=0.05)
  assert 0.0 < lines[20]["eval/fd_coordinates_error"] < ours
  seconds = {line["eval/seconds"] for line in metrics.read(whole)}
  assert len(seconds) == 4 and min(seconds) > 0.0
  assert all(0.0 < line["eval/share"] < 1.0 for line in metrics.read(whole))


def test_the_best_checkpoint_by_it_stays(whole):
  numbers = {l["step"]: l["eval/fd_coordinates"] for l in runs.curve(whole)}
  best = min(numbers, key=numbers.get)
  assert best != 20 and runs.steps(whole) == [best, 20]


def test_a_run_that_dies_in_an_evaluation_ends_with_the_same(
  whole, tmp_path, monkeypatch
):
  score, calls = scoring.score, []

  def dies(*args, **how):
    calls.append(1)
    if len(calls) == 3:
      raise SystemExit
    return score(*args, **how)

  with monkeypatch.context() as patch:
    patch.setattr(scoring, "score", dies)
    with pytest.raises(SystemExit):
      trained(tmp_path / "run")
  assert runs.steps(tmp_path / "run")[-1] == 10
  trained(tmp_path / "run")
  assert runs.curve(tmp_path / "run") == runs.curve(whole)
  assert runs.steps(tmp_path / "run") == runs.steps(whole)
  ours, theirs = (runs.final_arrays(w, 20) for w in (tmp_path / "run", whole))
  assert ours.keys() == theirs.keys()
  assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_an_evaluation_that_fails_is_said_and_training_goes_on(
  whole, monkeypatch
):
  run = resolve(dfj.load(whole).config)
  params = dfj.load(whole).params
  judge = evaluating.of(run, whole, params)
  said = []
  line = judge(7, jax.tree.map(lambda x: x * np.nan, params), said.append)
  assert set(line) == {"eval/seconds", "eval/share"}
  assert said[0].startswith("step 7: evaluation fails: 256 of 256 samples are")
  assert evaluating.loss_of(run.config, line, 0.5) is None  # never the best

  def full(*args, **how):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(scoring, "score", full)
  assert set(judge(8, params, said.append)) == set(line)
  assert said[1].startswith("step 8: evaluation fails: No space left on device")


def test_which_way_is_better_and_what_else_the_best_goes_by():
  def loss(by, line, held_out):
    config = ml_collections.ConfigDict({"keep": {"by": by} if by else {}})
    return evaluating.loss_of(config, line, held_out)

  line = {"eval/fd_coordinates": 2.0, "eval/recall": 0.25}
  assert loss(None, line, 0.5) == 0.5
  assert loss("eval/fd_coordinates", line, 0.5) == 2.0
  assert loss("eval/recall", line, 0.5) == -0.25
  assert loss("eval/kid", line, 0.5) is None


def test_losses_of_another_number_count_for_nothing(tmp_path):
  items = {"a": {"x": np.ones(3)}}
  with checkpoints.Checkpoints(tmp_path, latest=1, best=1, by="a") as saved:
    saved.save(1, items, 1.0)
    saved.save(2, items, 2.0)
  with checkpoints.Checkpoints(tmp_path, latest=1, best=1, by="a") as saved:
    assert saved.steps() == [2, 1]
  with checkpoints.Checkpoints(tmp_path, latest=1, best=1) as saved:
    saved.save(3, items, 3.0)
    saved.save(4, items, 4.0)
    assert saved.wait() and saved.steps() == [4, 3]


def refused(**changes):
  """What a config is refused with, before anything is made."""
  config = load("configs/toy2d.py:smoke")
  config.evaluate.every = 10
  for path, value in changes.items():
    section, _, key = path.partition("__")
    if key:
      config[section][key] = value
    else:
      del config[section]
  with pytest.raises(cli.Refusal) as caught:
    resolve(config)
  return str(caught.value)


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"evaluate__every": -1}, "config.evaluate.every must be an integer >= 0"),
    ({"evaluate__num_samples": 0}, "config.evaluate.num_samples must be"),
    ({"evaluate__metrics": "fix"}, "config.evaluate.metrics: 'fix' is no m"),
    ({"evaluate__metric": "fid"}, "config.evaluate.metric is not a field of"),
    ({"evaluate__solver": "heum"}, "config.evaluate.solver"),
    ({"evaluate__num_steps": 0}, "config.evaluate.num_steps must be"),
    ({"evaluate__guidance": np.inf}, "config.evaluate.guidance must be"),
    ({"keep__by": "fd_coordinates"}, "config.keep.by must be a number of"),
    ({"keep__by": "eval/log_likelihood"}, "config.keep.by must be a number"),
    ({"keep__by": "eval/fd_coordinates"}, "needs config.keep.best above 0"),
    (
      {
        "keep__by": "eval/fd_coordinates",
        "keep__best": 1,
        "evaluate__every": 15,
      },
      "so config.evaluate.every = 15 must be a multiple of",
    ),
    (
      {
        "keep__by": "eval/fd_coordinates",
        "keep__best": 1,
        "evaluate__every": 0,
      },
      "needs config.evaluate.every above 0",
    ),
  ],
)
def test_settings_that_cannot_work_are_refused_before_all(changes, words):
  assert words in refused(**changes)


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"features": "pixel"}, "config.evaluate.features: .*did you mean pixels"),
    ({"reference": "test"}, "config.evaluate.reference: "),
    ({"metrics": "inception_score"}, "config.evaluate.metrics: inception_sc"),
    ({"num_samples": 5}, "config.evaluate.metrics: fid needs 20 examples"),
  ],
)
def test_what_does_not_fit_the_run_is_refused_before_a_step(
  whole, tmp_path, changes, words
):
  known = dfj.load(whole)
  config = ml_collections.ConfigDict(known.config.to_dict())
  config.keep = dict(latest=1, every=0, best=0)
  config.evaluate.update(changes)
  with pytest.raises(cli.Refusal, match=words):
    evaluating.of(resolve(config), whole, known.params)


def test_a_best_that_no_metric_gives_is_refused_before_a_step(whole):
  known = dfj.load(whole)
  config = ml_collections.ConfigDict(known.config.to_dict())
  config.keep.by = "eval/recal"
  with pytest.raises(cli.Refusal, match="must be a number of"):
    resolve(config)
  config.keep.by = "eval/recall"
  with pytest.raises(
    cli.Refusal, match="no number of .*known: eval/fd_coordinates"
  ):
    evaluating.of(resolve(config), whole, known.params)
