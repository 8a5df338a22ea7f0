"""The command `evaluate`, and the numbers of a run that it is made of."""

import json
import os
import signal
import time

import flax.linen as nn
import jax
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli, evaluation as library, scoring
from diffflow_jax.commands import evaluate, export
from diffflow_jax.data import Arrays
from diffflow_jax.evaluation.estimates import Estimate, student
from diffflow_jax.scoring import compare, plan
from diffflow_jax.scoring.judged import Judged
from diffflow_jax.scoring.sides import Side
from diffflow_jax.scoring.subject import drawn_labels
from tests import commands, runs

METRICS = "fid,precision_recall:num=200,density_coverage:num=200,energy"
SPARSE = 400  # examples of the data
FLAGS = (
  f"--metrics={METRICS}", "--num_samples=400", "--solvers=ddim:3,heun:2",
  "--guidance=1,2", "--batch_size=32", "--against=ddim:2",
)  # fmt: skip


class Linear(nn.Module):
  """A network of images that compiles at once."""

  num_classes: int = 0

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    h = nn.Dense(z.size // len(z))(z.reshape(len(z), -1))
    return h.reshape(z.shape)


def data():
  return np.random.default_rng(1).normal(size=(SPARSE, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
  """A run on points in a file, of classes, with random parameters."""
  folder = tmp_path_factory.mktemp("runs")
  np.save(folder / "points.npy", data())
  spec = {"name": "arrays", "path": str(folder / "points.npy"), "scale": 1.0}
  return runs.untrained(folder / "ours", dataset=spec)


def told(workdir, out, *flags):
  """evaluation.json of the command in this process."""
  evaluate.main(["x", f"--workdir={workdir}", f"--out={out}", *flags])
  return json.loads((out / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def straight(ours, tmp_path_factory):
  """(folder, evaluation.json) of FLAGS, run without a break."""
  out = tmp_path_factory.mktemp("straight")
  return out, told(ours, out, *FLAGS)


def numbers(result):
  return {
    (one["sampler"], name): entry["value"]
    for one in result["samplers"]
    for name, entry in one["numbers"].items()
  }


def test_the_files_say_all_that_was_asked_and_found(straight):
  out, found = straight
  assert (out / "evaluation.png").stat().st_size > 10_000
  names = [one["sampler"] for one in found["samplers"]]
  assert names == [
    "ddim:3", "ddim:3 at guidance 2", "heun:2", "heun:2 at guidance 2",
    "ddim:2",
  ]  # fmt: skip
  assert [one["evaluations"] for one in found["samplers"]] == [3, 3, 4, 4, 2]
  assert found["asked"]["seed"] == 0 and found["run"]["step"] == 6
  assert found["images"] is None and found["versions"]["jax"]
  assert found["reference"]["num"] == SPARSE
  assert len(found["reference"]["fingerprint"]) == 32
  floor = found["reference"]["floor"]
  assert floor["fd_coordinates"]["num_samples"] == SPARSE // 2
  # two halves of the same law: c/200 of each side, c = 3.5 (Gaussian, d = 2)
  assert 0 <= floor["fd_coordinates"]["value"] < 4 * 2 * 3.5 / 200
  for one in found["samplers"]:
    entry = one["numbers"]["fd_coordinates"]
    assert entry["low"] < entry["value"] < entry["high"]
    assert entry["num_samples"] == 400
    assert one["numbers"]["recall"]["num_samples"] == 200
  assert len(found["comparisons"]) == 4 * 6


def test_a_stream_is_what_one_batch_is(ours, straight):
  """The command's chunks of 32, and all samples at once, by other functions."""
  x = dfj.load(ours).sample(
    400, labels=drawn_labels(3)[:400], solver="ddim", num_steps=3, guidance=1.0
  )
  reference = data()
  want = {
    "fd_coordinates": library.frechet(x, reference).plain,
    "recall": library.prdc(x[:200], reference, k_precision=3).recall,
    "coverage": library.prdc(x[:200], reference, k_density=5).coverage,
    "energy": library.energy_distance(x, reference),
  }
  (got,) = (o for o in straight[1]["samplers"] if o["sampler"] == "ddim:3")
  for name, estimate in want.items():
    entry = got["numbers"][name]
    mine = entry["value"], entry["standard_error"], entry["low"], entry["high"]
    np.testing.assert_allclose(mine, estimate, rtol=1e-4, atol=1e-5)


def test_a_killed_evaluation_goes_on_to_the_same_file(ours, straight, tmp_path):
  flags = [f"--workdir={ours}", f"--out={tmp_path}", *FLAGS]
  process = commands.start("evaluate", *flags)
  until = time.monotonic() + 240
  chunks = lambda: list(tmp_path.glob("chunks/samples-*/*.npz"))
  while len(chunks()) < 3 and time.monotonic() < until:
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.002)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert not (tmp_path / "evaluation.json").exists()
  there = {p: p.stat().st_mtime_ns for p in chunks()}
  torn = max(there)  # by something that knows of no whole files
  torn.write_bytes(torn.read_bytes()[:100])
  told(ours, tmp_path, *FLAGS)
  again = {p: p.stat().st_mtime_ns for p in chunks()}
  kept = [p for p in there if again[p] == there[p]]
  assert len(kept) == len(there) - 1 and len(again) == 5 * 13
  whole = (straight[0] / "evaluation.json").read_bytes()
  assert (tmp_path / "evaluation.json").read_bytes() == whole


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(ours, straight, tmp_path):
  eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
  flags = [f"--workdir={ours}", f"--out={tmp_path}", *FLAGS]
  done = commands.run("evaluate", *flags, **eight)
  assert done.returncode == 0, done.stderr
  assert "ddim:3 is" in done.stdout or "ddim:3 and" in done.stdout
  found = json.loads((tmp_path / "evaluation.json").read_text())
  one, other = numbers(straight[1]), numbers(found)
  assert one.keys() == other.keys()
  # a neighbour more or less, of 200, is what rounding may do
  np.testing.assert_allclose(
    [*other.values()], [*one.values()], rtol=1e-3, atol=5.1e-3
  )


def test_an_export_gives_the_numbers_of_its_run(ours, straight, tmp_path):
  folder = tmp_path / "export"
  export.main(["x", f"--workdir={ours}", f"--out={folder}"])
  flags = ("--metrics=fid", "--num_samples=400", "--batch_size=32",
           "--solvers=ddim:3")  # fmt: skip
  found = numbers(told(folder, folder / "eval", *flags))
  wanted = numbers(straight[1])
  assert found == {key: wanted[key] for key in found} and len(found) == 2
  assert dfj.load(folder).step == 6  # its eval is no part of it


def test_a_set_is_nothing_apart_from_itself(ours):
  """The reference is the samples themselves."""
  run = dfj.load(ours)
  x = run.sample(96, num_steps=2, labels=drawn_labels(3)[:96])
  found = run.evaluate(
    "fid,precision_recall,density_coverage,sliced_wasserstein,energy",
    num_samples=96,
    num_steps=2,
    reference=Arrays(x=x, scale=1.0),
  )
  got = {k: e["value"] for (_, k), e in _entries(found)}
  assert abs(got["fd_coordinates"]) < 1e-6
  assert got["precision"] == got["recall"] == got["coverage"] == 1.0
  # without bias, a set has less than nothing between it and itself
  assert got["energy"] < 0 and got["sliced_wasserstein"] < 1e-6


def _entries(result):
  for one in result["samplers"]:
    for name, entry in one["numbers"].items():
      yield (one["sampler"], name), entry


def test_more_samples_use_those_that_are_there(ours, tmp_path):
  drawn = lambda num: dfj.evaluate(
    str(ours), "fid", num_samples=num, batch_size=32, out=str(tmp_path)
  )
  drawn(70)
  there = {p: p.stat().st_mtime_ns for p in tmp_path.glob("chunks/s*/*.npz")}
  assert len(there) == 3
  more = drawn(130)
  again = {p: p.stat().st_mtime_ns for p in tmp_path.glob("chunks/s*/*.npz")}
  assert len(again) == 5 and {p: again[p] for p in there} == there
  x = dfj.load(ours).sample(130, labels=drawn_labels(3)[:130])
  reference = data()
  want = library.frechet(x, reference).plain.value
  (_, entry), *_ = _entries(more)
  np.testing.assert_allclose(entry["value"], want, rtol=1e-5)


def test_the_law_of_the_data_is_a_judge(tmp_path):
  run = dfj.load(runs.untrained(tmp_path, 0, dataset={"name": "ring"}))
  found = run.evaluate(
    "mode_shares,log_likelihood,kl:num=20,rtol=1e-2", num_samples=300
  )
  law, got = dfj.data.DATASETS["ring"]().density, dict(_entries(found))
  shares = got["ddim:3", "mode_shares"]["shares"]
  np.testing.assert_allclose([s[0] for s in shares], [s.value for s in (
    library.mode_shares(run.sample(300), law).shares)], atol=1e-5)  # fmt: skip
  assert abs(sum(s[0] for s in shares) - 1.0) < 1e-5
  floor = found["reference"]["floor"]  # the ring's own points
  assert floor["mode_shares"]["value"] < 0.02
  # -log p of a mode: entropy of N(0, 0.1² I) and of 8 modes, apart
  entropy = np.log(2 * np.pi * np.e * 0.01) + np.log(8)
  np.testing.assert_allclose(
    floor["log_likelihood"]["value"], -entropy, atol=0.06
  )
  assert (
    found["model"]["kl"]["value"] > 1
    and found["model"]["kl"]["standard_error"] > 0
  )


def test_images_are_bytes_and_bits_have_names(tmp_path):
  tiny = dict(name="tests.test_evaluate:Linear")
  runs.untrained(
    tmp_path, 10, shape=(8, 8, 1), dataset={"name": "digits"}, network=tiny,
    held_out={"num": 40, "split": "test"},
  )  # fmt: skip
  seen = []

  def features(images):
    seen.append(images)
    return np.asarray(images, np.float32).reshape(len(images), -1)[:, :3]

  features.dims, features.metric, features.logits = 3, "fd_spy", None
  features.name = features.fingerprint = "spy"
  found = dfj.load(tmp_path).evaluate(
    "fid,memorisation,bpd:num=20,rtol=0.1,num_importance=2",
    num_samples=40,
    num_steps=1,
    batch_size=40,
    features=features,
  )
  assert found["images"].startswith("uint8")
  assert {x.dtype for x in seen} == {np.dtype(np.uint8)}
  real = dfj.data.DATASETS["digits"]()
  want = np.floor(127.5 * (real.x[:40] / 8.0 - 1.0) + 128).clip(0, 255)
  (first,) = {x[:40].tobytes() for x in seen if np.array_equal(x[:40], want)}
  x = dfj.load(tmp_path).sample(40, num_steps=1, labels=drawn_labels(10)[:40])
  want = np.floor(127.5 * x + 128).clip(0, 255).astype(np.uint8)
  assert any(
    np.abs(x - want.astype(int)).max() <= 1 for x in seen if len(x) == 40
  )
  assert found["samplers"][0]["numbers"]["fd_spy"]["num_samples"] == 40
  assert found["samplers"][0]["numbers"]["nearer_to_train"]["expected"] == (
    1438 / 1478
  )
  bits = found["model"]
  assert list(bits) == [f"bpd_{n}" for n in (
    "uniform", "importance", "flow", "variational")]  # fmt: skip
  for entry in bits.values():
    assert entry["of"].startswith("upper bound") and entry["standard_error"] > 0
    assert entry["images"] == "held_out" and entry["num_samples"] == 20
  # 17 values 1/8 apart: sigma/alpha is a sixth of that, or 1/2.85
  assert np.isclose(bits["bpd_flow"]["logsnr"], 2 * np.log(6 * 8))
  assert np.isclose(bits["bpd_uniform"]["logsnr"], 2 * np.log(2.85 * 8))
  assert "num_probes=0" in bits["bpd_importance"]["note"]


def _gaussians(num=4000):
  """Two paired sets N(0, I) + shift, against N(0, I): Judged, and the sets."""
  rng = np.random.default_rng(0)
  x, reference = rng.normal(size=(num, 4)), rng.normal(size=(4000, 4))
  pair = x + [0.5, 0, 0, 0], x + [0.3, 0, 0, 0]
  reference = Side.of_arrays({"features": reference})
  features = type("F", (), dict(metric="fd_x"))
  return [
    Judged(
      samples=Side.of_arrays({"features": y}), reference=reference,
      features=features,
    )
    for y in pair
  ], x  # fmt: skip


def test_a_difference_has_the_error_of_what_is_not_shared():
  """FD(a) - FD(b) = |a|² - |b|² + 2 (a - b)·(m_x - m_r): the covariances are
  the same numbers, so all that varies is m_x, of which s = 2 |a - b|/√n."""
  (one, other), x = _gaussians()
  (metric,) = scoring.metrics_of("fid")
  found = compare.differences(metric, one, other)["fd_x"]
  mean = one.reference.array().mean(0)
  exact = 0.25 - 0.09 + 2 * 0.2 * (x.mean(0) - mean)[0]
  np.testing.assert_allclose(found.value, exact, atol=1e-9)
  np.testing.assert_allclose(found.standard_error, 0.4 / 4000**0.5, rtol=0.5)
  alone = library.frechet(one.samples.array(), one.reference.array())
  assert found.standard_error < 0.5 * alone.plain.standard_error
  # parts of both sets, for all others
  (metric,) = scoring.metrics_of("energy")
  found = compare.differences(metric, one, other)["energy"]
  assert found.low > 0 and found.standard_error < 0.05


def test_what_a_difference_is_called():
  """± is half of the 95 % interval; more samples by n 7.849 (s/d)²."""
  words = lambda number, value, error: compare.words(
    number, student(value, error), ("A", "B"), 5000
  )
  assert words("fd_x", -0.31, 0.0612) == (
    "fd_x: A is better than B by 0.31 ± 0.12"
  )
  assert words("recall", -0.31, 0.0612).startswith("recall: A is worse than B")
  assert words("label_agreement", 0.2, 0.01).startswith(
    "label_agreement: A is higher than B by 0.2"
  )
  # 5000 * 7.849 * (0.1/0.1)² = 39,245
  assert words("fd_x", 0.1, 0.1) == (
    "fd_x: A and B cannot be told apart with 5,000 samples (0.1 ± 0.2); about "
    "40,000 would be needed"
  )
  assert words("fd_x", 0.0, 0.0) == "fd_x: A and B are equal"
  assert "over a billion" in words("fd_x", 1e-7, 1.0)
  nothing = Estimate(1.0, np.nan, np.nan, np.nan)
  assert "tell no error" in compare.words("kid", nothing, "AB", 30)
  assert compare.needed(student(0.1, 0.1), 5000) == 39_245


def test_a_run_is_compared_with_another_by_common_noise(ours, tmp_path):
  other = runs.untrained(tmp_path / "other")
  flags = ["--metrics=fid,kid", "--num_samples=400", f"--against={other}"]
  found = told(ours, tmp_path / "out", *flags)["comparisons"]
  for one in found:  # the same parameters
    assert one["difference"]["value"] == 0 and one["words"].endswith("equal")
    assert str(other) in one["words"] and str(ours) in one["words"]
  flags[-1] = f"--against={runs.untrained(tmp_path / 'b', num_classes=2)}"
  with pytest.raises(cli.Refusal, match="--against: .* has classes: 2, and"):
    told(ours, tmp_path / "out", *flags)


def test_samplers_and_metrics_by_name():
  arms = plan.arms("auto:10, sde:eta=0.5,b=(1,2):20,ddim", [5, 7], [1.0])
  assert [(a.solver, a.num_steps, a.guidance) for a in arms] == [
    ("auto", 10, 1.0), ("sde:eta=0.5,b=(1,2)", 20, 1.0),
    ("ddim", 5, 1.0), ("ddim", 7, 1.0),
  ]  # fmt: skip
  assert plan.arms(None, None, None) == [plan.Arm()]
  assert arms[0].settings(grid="karras") == {
    "solver": "auto", "num_steps": 10, "guidance": 1.0,
  }  # fmt: skip
  found = scoring.metrics_of("fd,precision_recall:k=5,num=9,kid")
  assert [m.name for m in found] == ["fid", "precision_recall", "kid"]
  assert found[1].settings == {"k": 5, "num": 9}
  assert found[1].names(None) == ("precision", "recall")
  for number, which in (
    ("fd_x_unbiased", "lower"), ("recall", "higher"), ("label_agreement", None)
  ):  # fmt: skip
    assert scoring.better(number) == which


@pytest.mark.parametrize(
  "flags, message",
  [
    ("--metrics=fidd", "'fidd' is no metric; known: .*did you mean fid"),
    ("--metrics=kid:parts=3", "kid has no setting 'parts'; it has: none"),
    ("--metrics=mmd:width=3", "mmd has no setting 'width'; it has: bandwidth"),
    ("--metrics=kid,kid", "--metrics names kid twice"),
    ("--metrics=,", "--metrics names nothing"),
    ("--num_samples=0", "--num_samples must be at least 1, not 0"),
    ("--num_samples=12", "fid needs 20 examples: --num_samples is 12"),
    ("--solvers=dddim:3", "--solver is 'dddim'; .*did you mean ddim"),
    ("--solvers=ddim:3x", "'3x' in 'ddim:3x' is not setting=value"),
    ("--solvers=ddim:0", "--num_steps must be at least 1, not 0"),
    ("--solvers=ddim:3,ddim:3", "--solvers names ddim twice"),
    ("--solvers=ddim:3 --num_steps=4", "--num_steps has no effect"),
    ("--guidance=a", "--guidance must be numbers"),
    ("--labels=7", "--labels must be 0 to 2, not 7"),
    ("--features=pixel", "--features: .*did you mean pixels"),
    ("--reference=tran", "--reference: .* must be one of train, held_out"),
    ("--against=nowhere", "--against must be a run or a solver"),
    ("--metrics=bpd", "bpd is for data of at most 256 values"),
    ("--metrics=inception_score", "needs the logits of a classifier"),
    (
      "--metrics=precision_recall --num_samples=500",
      "is above the 400 of train; take precision_recall:num=400",
    ),
    (
      "--metrics=precision_recall:num=50 --num_samples=40",
      "precision_recall:num=50 is above --num_samples=40",
    ),
    (
      "--metrics=density_coverage:k=40 --num_samples=40",
      "density_coverage:k=40 must be below the 40 of the smaller set",
    ),
    (
      "--metrics=mmd:bandwidth=0",
      "mmd:bandwidth must be a number above 0, not",
    ),
    (
      "--metrics=memorisation:threshold=2",
      r"memorisation:threshold must be a number in \(0, 1\), not 2",
    ),
    ("--metrics=bpd:num=0", "--metrics: bpd:num must be at least 1, not 0"),
    (
      "--metrics=precision_recall:k=2.5",
      "--metrics: precision_recall:k must be an integer, not 2.5",
    ),
    (
      "--num_samples=40 --batch_size=300",
      "--batch_size=300 is above --num_samples=40, and whole batches",
    ),
    ("--seed=-1", r"--seed must be in \[0, 2\^32\), not -1"),
    ("--step=5", "has no checkpoint of step 5"),
  ],
)
def test_what_cannot_work_is_refused_in_a_sentence(
  flags, message, ours, tmp_path
):
  out = tmp_path / "out"
  with pytest.raises(cli.Refusal, match=message):
    told(ours, out, *flags.split())
  assert not list(out.rglob("*.json"))


def test_a_folder_that_cannot_be_made_is_refused(ours, tmp_path):
  (tmp_path / "file").write_text("")
  for out in (tmp_path / "file", tmp_path / "file" / "below"):
    with pytest.raises(cli.Refusal, match=f"--out: {out}"):
      told(ours, out)


def test_other_data_and_no_classes_are_refused(ours, tmp_path):
  run = dfj.load(ours)
  with pytest.raises(cli.Refusal, match="samples are 2, and .* 3"):
    run.evaluate(reference=Arrays(x=np.zeros((50, 3), np.float32), scale=1.0))
  plain = runs.untrained(tmp_path / "a", 0, dataset={"name": "moons"})
  run = dfj.load(plain)
  with pytest.raises(cli.Refusal, match="trained without classes"):
    run.evaluate(guidance=2.0)
  with pytest.raises(
    cli.Refusal, match="mode_shares is for data with a closed"
  ):
    run.evaluate("mode_shares")
  with pytest.raises(cli.Refusal, match="config.held_out holds none out"):
    run.evaluate("memorisation")
  moments = library.moments(np.random.default_rng(0).normal(size=(50, 2)))
  library.write_statistics(str(tmp_path / "s.npz"), moments)
  found = run.evaluate(num_samples=40, reference=str(tmp_path / "s.npz"))
  assert found["reference"]["floor"] == {}
  with pytest.raises(cli.Refusal, match="holds mu and sigma alone"):
    run.evaluate("kid", reference=str(tmp_path / "s.npz"))


def test_too_few_samples_for_the_dimension_are_said(ours):
  """With what it does to the number: even perfect ones would have c/n."""
  run, rng = dfj.load(ours), np.random.default_rng(0)
  wide = rng.normal(size=(2, 40)).astype(np.float32)
  features = lambda x: np.asarray(x, np.float32) @ wide
  features.dims, features.metric, features.logits = 40, "fd_wide", None
  features.name = features.fingerprint = "wide"
  found = run.evaluate(num_samples=30, features=features)
  (_, entry), *_ = _entries(found)
  assert "even perfect ones would have about" in entry["note"]


def test_samples_that_are_not_finite_fail(ours, tmp_path):
  """One sampler's; the others are judged, and the file says which."""
  run = dfj.load(ours)
  broken = jax.tree.map(lambda a: a * np.nan, run.params)
  recipe = run.recipe
  from diffflow_jax.runs.run import Run

  bad = Run(str(ours), recipe, lambda: (6, broken))
  with pytest.raises(cli.Failure, match="256 of 256 samples are not finite"):
    bad.evaluate(num_samples=40, out=str(tmp_path))
  found = json.loads((tmp_path / "evaluation.json").read_text())
  assert "not finite" in found["samplers"][0]["failed"]


def test_a_trainers_parameters_are_scored_without_a_folder(ours):
  """What `config.evaluate` calls: a Run of arrays, a reference made once."""
  from diffflow_jax.runs.run import Run

  run = dfj.load(ours)
  now = Run("workdir", run.recipe, lambda: (7, run.params))
  features = library.features_of("pixels", now.card)
  reference = scoring.Reference.of(
    run.recipe, features, Arrays(x=data(), scale=1.0)
  )
  subject = scoring.Subject(now, num_steps=2)
  metrics = scoring.metrics_of(["fid"])
  found = scoring.score(
    subject, metrics, num_samples=100, reference=reference, batch_size=50
  )
  want = library.frechet(
    run.sample(100, num_steps=2, labels=drawn_labels(3)[:100]),
    reference.side.array(),
  )
  assert list(found) == [*metrics[0].names(features)]
  np.testing.assert_allclose(
    found["fd_coordinates"]["value"], want.plain.value, rtol=1e-5
  )


def test_labels_are_drawn_so_that_samples_are_independent():
  """In turn, the correction of a Fréchet distance takes off too much."""
  labels = drawn_labels(10)
  assert np.array_equal(drawn_labels(10, 100), labels[:100])
  share = np.bincount(labels) / len(labels)
  np.testing.assert_allclose(share, 0.1, atol=4 * (0.09 / len(labels)) ** 0.5)
  means = 3.0 * np.random.default_rng(1).normal(size=(10, 8))

  def off(labels, rng):
    one = lambda y: means[y] + 0.3 * rng.normal(size=(len(y), 8))
    real = one(rng.integers(10, size=20_000))
    return library.frechet(one(labels), real).unbiased.value

  rng = np.random.default_rng(2)
  independent = [off(rng.permutation(labels)[:200], rng) for _ in range(20)]
  in_turn = [off(np.arange(200) % 10, rng) for _ in range(20)]
  error = np.std(independent) / 20**0.5
  assert abs(np.mean(independent)) < 3.5 * error
  assert np.mean(in_turn) < -5 * np.std(in_turn) / 20**0.5
