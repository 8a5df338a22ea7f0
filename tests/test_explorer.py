"""The page of sliders runs tables as the library does, and needs no more."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax.explorer import page, tables, world
from diffflow_jax.process import targets
from tests import commands

GRID, STEPS = "VP linear (DDPM)", 3  # the index of 4 steps


@pytest.fixture(scope="module")
def browser():
  racer = pytest.importorskip("py_mini_racer")
  context = racer.MiniRacer()
  context.eval(page.core())
  numbers = page._plain(world.describe())
  context.eval(f"var mixture = {json.dumps(numbers['mixture'])};")
  return context


def _table(name, dial):
  make = tables.SOLVERS[name][0]
  return make(tables.grid_of(GRID, tables.STEPS[STEPS]), tables.DIALS[dial])


def _model(chosen):
  weights, means, stds, classes = world.mixture()
  own = classes == chosen if chosen is not None else classes >= 0
  return dfj.closed_form.mixture(
    weights[own] / weights[own].sum(), means[own], stds[own]
  )


@pytest.mark.parametrize("name", sorted(tables.SOLVERS))
def test_a_table_gives_the_samples_of_the_library(browser, name):
  dial = 2 if tables.SOLVERS[name][1] else 0
  table = _table(name, dial)
  rows, start = len(table.mix), float(table.start.sigma)
  rng = np.random.default_rng(0)
  z, xi = start * rng.normal(size=(5, 2)), rng.normal(size=(rows, 5, 2))
  given = json.dumps(page._plain(tables.as_numbers(table)))
  for chosen, strength in ((None, 1.0), (1, 1.0), (0, 2.5)):
    ours, null = _model(chosen), _model(None)

    def predict(z, lv, cond, ours=ours, null=null, strength=strength):
      own, all_ = ours(z, lv, None), null(z, lv, None)
      return tuple(
        n + strength * (o - n) for o, n in zip(own, all_, strict=True)
      )

    with jax.enable_x64():
      want = np.asarray(
        dfj.sample(predict, table, z=jnp.asarray(z), noise=jnp.asarray(xi))
      )
    script = f"""JSON.stringify({z.tolist()}.map((z, i) => run({given}, mixture,
      z, (row) => ({xi.tolist()})[row][i], {json.dumps(chosen)}, {strength},
      null)))"""
    np.testing.assert_allclose(
      json.loads(browser.eval(script)), want, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["ddim", "sde_dpmpp_2m", "unipc"])
def test_the_parts_of_a_sample_are_those_of_the_library(browser, name):
  table = _table(name, 2 if tables.SOLVERS[name][1] else 0)
  want = dfj.contributions(table, targets.u)
  given = json.dumps(page._plain(tables.as_numbers(table)))
  script = f"""var c = contributions({given});
    JSON.stringify([Array.from(c.u), Array.from(c.noise), c.start])"""
  u, noise, start = json.loads(browser.eval(script))
  np.testing.assert_allclose(u, want["kept"], atol=1e-8)
  np.testing.assert_allclose(noise, want["noise"], atol=1e-8)
  np.testing.assert_allclose(start, want["start"], atol=1e-8)


@pytest.mark.slow
def test_the_command_writes_one_small_file_that_needs_no_other(tmp_path):
  out = tmp_path / "explorer.html"
  done = commands.run("explore", f"--out={out}")
  assert done.returncode == 0, done.stderr
  text = out.read_text(encoding="utf-8")
  assert len(text.encode()) < 3e6
  assert not re.search(r"(src|href)=.?(https?:|//|\.)", text)
  assert "/*NUMBERS*/" not in text and "fetch(" not in text
  done = commands.run("explore", f"--out={tmp_path / 'page.png'}")
  assert done.returncode == 2 and "must end in .html" in done.stderr
