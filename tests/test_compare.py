"""compare: what recipes share, in words and numbers, and as a command."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli
from diffflow_jax.commands import compare as command
from diffflow_jax.objective import densities, objectives, weightings
from diffflow_jax.objective.comparison import compare
from diffflow_jax.process import schedules, targets
from tests import commands


def _run(*args):
  return commands.run("compare", *args)


def test_flow_matching_and_v_diffusion_share_their_weighting():
  """The library's claim, said by the tool: w up to π/2, and the rest not."""
  c = dfj.compare(objectives.flow_matching(), objectives.v_diffusion())
  assert c.shared() == ["weighting"]
  np.testing.assert_allclose(c.weighting.constant, np.pi / 2, rtol=1e-6)
  assert "equal up to 1.5708" in str(c)
  # input: √(alpha² + sigma²) of linear is least at t = ½, 1/√2
  assert "ratio 0.707 (at logsnr 0.0)" in c.input_scaling.text
  # density: total variation of ⅛ sech²(λ/4) and sech(λ/2)/2π, by quadrature
  lam = np.linspace(-40, 40, 200001)
  p = 1 / np.cosh(lam / 4) ** 2 / 8
  q = 1 / np.cosh(lam / 2) / (2 * np.pi)
  percent = 100 * 0.5 * np.trapezoid(np.abs(p - q), lam)
  said = float(c.density.text.split(" % of the draws fall elsewhere")[0])
  np.testing.assert_allclose(said, percent, rtol=0.01)  # two digits
  # the outputs u ~ (-1, 1) and v ~ (-sigma, alpha): angles apart, by hand
  assert "up to 45 degrees apart" in c.network_output.text


def test_each_aspect_alone_is_found():
  """Change one choice of a recipe: that one differs, no other."""
  base = objectives.flow_matching()
  constant = lambda l: base.weighting(l) + jnp.log(3.0)
  cases = {
    "density": base.replace(density=densities.Normal(0.0, 3.0)),
    "weighting": base.replace(weighting=weightings.Sigmoid(1.0)),
    "network_output": base.replace(target=targets.v),
    "schedule": base.replace(
      schedule=schedules.Shift(base.schedule, 3.0), target=targets.flow
    ),
  }
  for name, other in cases.items():
    a = base.replace(target=targets.flow) if name == "schedule" else base
    c = compare(a, other)
    assert set(c.aspects()) - set(c.shared()) == {name}, str(c)
  c = compare(base, base.replace(weighting=constant))
  assert len(c.shared()) == 5
  np.testing.assert_allclose(c.weighting.constant, 1 / 3.0, rtol=1e-6)
  c = compare(base, cases["schedule"])
  np.testing.assert_allclose(c.schedule.constant, 2 * np.log(3.0), rtol=1e-9)
  assert "shifted: logsnr +2.197 at every t" in c.schedule.text


def test_scales_alone_and_proportional_outputs():
  base = objectives.vp_sde()
  c = compare(base, base.replace(scale=dfj.levels.linear))
  assert set(c.aspects()) - set(c.shared()) == {"input_scaling"}
  c = compare(base, base.replace(target=targets.score))
  assert "the same up to a factor by level" in c.network_output.text
  # F at sigma_data = 1 is -v
  v = objectives.v_diffusion()
  c = compare(v, v.replace(target=targets.F(1.0)))
  np.testing.assert_allclose(c.network_output.constant, -1.0, rtol=1e-6)


def test_small_differences_are_said_in_their_size():
  """No "0 %", and no stretch of a single level."""
  base = objectives.sd3()
  near = base.replace(density=densities.Normal(0.0, 2.01))
  text = compare(base, near).density.text
  # total variation of N(0, 2²) and N(0, 2.01²): slope √(2/πe) per log std
  percent = 100 * np.log(2.01 / 2.0) * np.sqrt(2 / (np.pi * np.e))
  said = float(text.split(" %")[0])
  np.testing.assert_allclose(said, percent, rtol=0.05)
  assert "draws more" not in text
  text = str(compare(*(objectives.make(n) for n in ("ddpm", "iddpm"))))
  spans = re.findall(r"(-?[0-9.]+) to (-?[0-9.]+)", text)
  assert spans and all(a != b for a, b in spans)


def test_names_are_no_objectives():
  with pytest.raises(
    ValueError, match="compare takes objectives, .* not 'edm'"
  ):
    compare("edm", objectives.edm())


def test_every_pair_of_recipes_has_a_report():
  names = list(objectives.OBJECTIVES)
  for a, b in zip(names, names[1:] + names[:1], strict=True):
    text = str(compare(*(objectives.make(n) for n in (a, b)), (a, b)))
    assert text.startswith(f"{a} against {b}") and "nan" not in text


def test_the_figures_are_drawn(tmp_path):
  import matplotlib

  matplotlib.use("Agg")
  from diffflow_jax import plots

  c = compare(objectives.edm(), objectives.v_diffusion(), ("edm", "v"))
  figure = plots.plot_comparison(c)
  figure.savefig(tmp_path / "a.png", dpi=40)
  assert len(figure.axes) == 6 and len(figure.axes[0].lines) == 2
  np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), c.density.a)
  flow = schedules.Flow()
  ax = plots.plot_schedules({"flow": flow, "karras": schedules.Karras()})
  assert [t.get_text() for t in ax.get_legend().texts] == ["flow", "karras"]
  ax = plots.plot_densities({"flow": densities.UniformTime(flow)})
  x, y = ax.lines[0].get_data()
  np.testing.assert_allclose(y, 1 / np.cosh(x / 4) ** 2 / 8, rtol=1e-4)
  ax = plots.plot_weightings({"fm": objectives.flow_matching().weighting})
  x, y = ax.lines[0].get_data()
  np.testing.assert_allclose(y, np.exp(-x / 2), rtol=1e-4)


def test_the_command_draws_and_reads_config_files(tmp_path):
  config = tmp_path / "mine.py"
  config.write_text(
    "import ml_collections\n"
    "def get_config():\n"
    "  return ml_collections.ConfigDict(dict(objective=dict(\n"
    "    name='edm', sigma_data=0.7)))\n"
  )
  out = tmp_path / "c.png"
  done = _run(f"--configs=edm,{config}", f"--out={out}")
  assert done.returncode == 0, done.stderr
  assert (
    done.stdout.startswith("edm against mine.py") and out.stat().st_size > 1e4
  )
  assert "density        same    equal" in done.stdout


@pytest.mark.parametrize(
  "args,message",
  [
    (["--configs=flow_matching"], "--configs must be two names, A,B"),
    (["--configs=edm,edn"], "--configs names 'edn'; known: ddpm, edm"),
    (["--configs=edm,no.py"], "there is no file 'no.py'"),
    (["--configs=edm,vdm", "--out=a.txt"], "must end in .png, .pdf, .svg"),
    (
      ["--configs=edm,vdm", "--out=/no/a.png"],
      "--out: /no/a.png: No such file",
    ),
  ],
)
def test_bad_arguments_are_refused_in_one_sentence(args, message):
  with pytest.raises(cli.Refusal) as caught:
    command.main(["compare", *args])
  assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_file_without_an_objective_is_refused(tmp_path):
  for text, message in (
    ("x = 1\n", "has no get_config()"),
    ("def get_config(): return {}\n", "has no objective.name"),
  ):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(cli.Refusal) as caught:
      command.main(["compare", f"--configs=edm,{tmp_path / 'c.py'}"])
    assert message in str(caught.value)


def test_outputs_that_differ_by_a_factor_say_which_is_larger():
  one = objectives.flow_matching()
  double = one.replace(target=lambda lv: tuple(2.0 * c for c in targets.u(lv)))
  output = compare(double, one).network_output
  assert output.same and output.text == "equal up to 2"
  assert abs(output.constant - 2.0) < 1e-6
