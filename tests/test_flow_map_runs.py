"""Runs of flow maps: sampled, exported and loaded as such, and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli, networks
from diffflow_jax.process import conditions
from diffflow_jax.sampling import grids, solvers, tableau
from tests import runs

MAP = dict(solver="flow_map", grid="uniform_t", num_steps=2, guidance=1.0)


def made(path, method, **extra):
  """A run with random parameters, those of its destination too."""
  return runs.untrained(
    path,
    network=dict(name="mlp", width=8, depth=1, destination=True),
    method=method,
    sampler=dict(MAP, num_samples=6),
    **extra,
  )


@pytest.fixture(scope="module")
def mean_flow(tmp_path_factory):
  return made(
    tmp_path_factory.mktemp("flow_map") / "run", {"name": "mean_flow"}
  )


def test_a_run_is_sampled_loaded_and_exported_as_a_flow_map(
  mean_flow, tmp_path
):
  run = dfj.load(mean_flow)
  assert run.network.destination and run.predict.destination
  samples, _, evaluations = run.draw()
  assert evaluations == 2 and samples.shape == (6, 2)
  # the table, and the map that is told where it goes, by hand
  schedule, scale = run.objective.schedule, run.objective.scale
  grid = grids.uniform_t(schedule, scale, 2)
  z = tableau.noise_lib.start(
    jax.random.key(0), 0, jnp.asarray(grid.sigma[0]), (6, 2), dtype=jnp.float32
  )
  for i in range(2):
    s, t = (jnp.full(6, grid.logsnr[j], jnp.float32) for j in (i, i + 1))
    y = run.network.apply(run.params, z, s, run.labels(6), t)
    z = z - (grid.sigma[i] - grid.sigma[i + 1]) * y  # u, on flow's own scale
  np.testing.assert_allclose(samples, z, rtol=1e-4, atol=1e-5)
  # not what the denoiser of the same network gives
  assert np.abs(run.sample(solver="ddim") - samples).max() > 1e-3
  out = tmp_path / "out"
  run.export(out, batch=6)
  again = dfj.load(out)
  np.testing.assert_array_equal(again.sample(), samples)
  draw = dfj.load_exported(out / "sampler.jaxexport")
  got = draw(jax.random.key(0), run.labels(6))
  np.testing.assert_allclose(got, samples, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "settings",
  [
    dict(solver="flow_map:gamma=0.5"),
    dict(solver="flow_map:gamma=1"),
    dict(solver="flow_map_ddim:eta=0.5"),
    dict(solver="flow_map_tcd:gamma=0.2,coordinate=flow"),
    dict(num_steps=1),
    dict(solver="heun"),
    dict(restart=(0, 1, 1), grid="uniform_logsnr"),
    dict(clip="static:limit=2"),
  ],
)
def test_what_is_asked_of_it(mean_flow, settings):
  assert np.isfinite(dfj.load(mean_flow).sample(**settings)).all()


def test_refusals(mean_flow, tmp_path):
  ordinary = dfj.load(runs.untrained(tmp_path / "ordinary"))
  with pytest.raises(
    cli.Refusal, match="solver=flow_map is a flow map's, .*take another solver"
  ):
    ordinary.sample(solver="flow_map")
  run = dfj.load(mean_flow)
  with pytest.raises(
    cli.Refusal, match="guidance must be 1 with solver=flow_m"
  ):
    run.sample(guidance=2.0)
  assert np.isfinite(run.sample(guidance=2.0, solver="ddim")).all()
  for name, reaches in (
    ("consistency_distillation", "data"),
    ("progressive_distillation", "other"),
  ):
    method = {"name": name}
    if reaches == "other":
      method |= {"steps_per_stage": 9, "last": 2}
      extra = dict(teacher=dict(grid="uniform_t", num_steps=4))
    else:
      extra = {}
    known = dfj.load(made(tmp_path / name, method, **extra))
    assert known.predict.reaches == reaches
    with pytest.raises(
      cli.Refusal, match="solver=ddim: .* never taught to den"
    ):
      known.sample(solver="ddim")
    if reaches == "data":
      with pytest.raises(cli.Refusal, match="flow_map: .* to the data only"):
        known.sample()
      assert np.isfinite(known.sample(solver="flow_map:gamma=1")).all()
    else:
      assert np.isfinite(known.sample()).all()
  with pytest.raises(cli.Refusal, match="gamma must be in"):
    run.sample(solver="flow_map:gamma=2")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  """A run whose network is told strengths of guidance."""
  method = dict(name="mean_flow", strengths=(1.0, 8.0))
  return made(tmp_path_factory.mktemp("told") / "run", method)


def test_a_strength_that_the_network_is_told(told):
  run = dfj.load(told)
  one, also, two = (run.sample(guidance=w) for w in (1.0, None, 3.0))
  np.testing.assert_array_equal(one, also)
  assert np.abs(two - one).max() > 1e-4
  # by hand: a vector in cond
  labels = run.labels(6)
  w = np.full((6, 1), np.arcsinh(2.0), np.float32)
  cond = {"label": labels, "guidance": conditions.Given(w, np.ones(6, bool))}
  grid = grids.uniform_t(run.objective.schedule, run.objective.scale, 2)
  want = tableau.sample(
    run.predict, solvers.flow_map(grid), jax.random.key(0), (6, 2), cond=cond
  )
  np.testing.assert_allclose(two, want, rtol=1e-5, atol=1e-6)
  for settings, message in (
    (dict(guidance=9.0), r"guidance must be in \[1, 8\], the strengths"),
    (dict(guidance=2.0, negative_label=1), "negative_label has no effect: the"),
    (
      dict(guidance=2.0, guidance_rescale=0.5),
      "guidance_rescale has no effect",
    ),
  ):
    with pytest.raises(cli.Refusal, match=message):
      run.sample(**settings)


def test_a_denoiser_that_is_told_a_strength_is_at_first_what_it_was():
  told = conditions.with_told_strength(
    {"label": conditions.Condition("label", (), 3)}
  )
  old = networks.MLP(width=8, depth=1, num_classes=3)
  new = networks.MLP(width=8, depth=1, num_classes=3, conditions=told)
  z, logsnr, label = jnp.ones((2, 2)), jnp.zeros(2), jnp.array([0, 3])
  first = old.init(jax.random.key(0), z, logsnr, label)["params"]
  both = new.init(jax.random.key(0), z, logsnr, label)["params"]
  added = both["Conditioning_0"].pop("guidance")
  jax.tree.map(np.testing.assert_array_equal, first, both)
  both["Conditioning_0"]["guidance"] = added
  out = jax.tree.map(lambda p: p + 0.1, (first, both))
  for params in out:
    params["Conditioning_0"].pop("guidance", None)
  out[1]["Conditioning_0"]["guidance"] = added
  want = old.apply({"params": out[0]}, z, logsnr, label)
  for cond in (label, conditions.with_strength(label, 4.0, 2)):
    got = new.apply({"params": out[1]}, z, logsnr, cond)
    np.testing.assert_allclose(got, want, rtol=1e-6)
