"""Bits per dimension of a run, four ways, each with what it is a bound of.

    bpd_uniform      -log p(x + u) of the flow down to sigma/alpha = width/2.85
    bpd_importance   the same with K draws of u in the log
    bpd_flow         of the flow down to width/6, with noise of that level, cut
                     off at the borders of a bin
    bpd_variational  the chain's bound, with the discretised decoder

`evaluation.bits` has the formulas. width/2.85 is where 256 levels are at
log-SNR 11.8, and width/6 at 13.3, VDM's: at the first, uniform noise costs a
model that knows the values 0.01 bits, at the second 0.86. Without guidance: a
guided model has no density.
"""

import math

import jax

from diffflow_jax.cli import Refusal
from diffflow_jax.evaluation import bits, estimates, variational
from diffflow_jax.process import levels, schedules
from diffflow_jax.scoring.plain import as_plain

BLURRED, SHARP = 2.85, 6.0  # width over sigma/alpha
NOISIEST = -10.0  # log-SNR of the chain's prior
TRACE = (
  "too small: the noise of the trace makes the mean of K weights too large; "
  "num_probes=0 takes the exact trace"
)


def bpd(
  judged,
  num=256,
  num_importance=4,
  num_steps=None,
  num_probes=1,
  rtol=1e-4,
  batch_size=64,
):
  """The four of held-out images, or of training ones if none are held out.

  Args:
    num: images; num_importance: K; num_steps: of the chain, None for continuous
      time; num_probes: of the trace, 0 for the exact one, which costs as many
      products as dimensions; rtol: of the flow.
  """
  found = measured(
    judged.run, judged.examples, judged.seed, num=num,
    num_importance=num_importance, num_steps=num_steps, num_probes=num_probes,
    rtol=rtol, batch_size=batch_size,
  )  # fmt: skip
  return {name: entry for name, (entry, _) in found.items()}


def differences(one, other):
  """{number: Estimate} of two of `measured`, image by image where they can."""
  found = {}
  for name, (_, bound) in one.items():
    theirs = other[name][1]
    if hasattr(bound, "per_image"):
      found[name] = estimates.mean(bound.per_image - theirs.per_image)
    else:
      a, b = bound.total, theirs.total
      error = math.hypot(a.standard_error, b.standard_error)
      found[name] = estimates.student(a.value - b.value, error)
  return found


def check(reference, run, name="bpd"):
  """Refuses data that is not discrete."""
  if getattr(reference.dataset, "values", None) is None:
    raise Refusal(
      f"{name} is for data of at most 256 values, and those of {run.path} are "
      "continuous, of which a bound of probabilities says nothing"
    )


def measured(
  run, reference, seed, num=256, num_importance=4, num_steps=None,
  num_probes=1, rtol=1e-4, batch_size=64,
):  # fmt: skip
  """{number: (JSON-able dict, `Bits` or `VariationalBits`)} of examples.

  Args:
    reference: whose examples; others as of `bpd`.
  Raises:
    Refusal: data that is not discrete.
  """
  check(reference, run)
  values = reference.dataset.values
  x, cond = reference.examples(num)
  width = float(values[1] - values[0])
  keys = jax.random.split(jax.random.key(seed), 5)
  trace = {"num_probes": num_probes, "key": keys[4]} if num_probes else {}

  def density(share):
    lv = levels.at_logsnr(levels.vp, _logsnr(width, share))
    return bits.flow_density(run.predict, lv, rtol=rtol, atol=rtol, **trace)

  how = dict(cond=cond, batch_size=batch_size)
  blurred = density(BLURRED)
  uniform = bits.uniform_bits(blurred, x, width, keys[0], **how)
  importance = bits.uniform_bits(
    blurred, x, width, keys[1], num_importance=num_importance, **how
  )
  flow = bits.truncated_normal_bits(
    density(SHARP), x, width, width / SHARP, keys[2], **how
  )
  chain = variational.variational_bits(
    run.predict,
    schedules.LinearLogSNR(NOISIEST, _logsnr(width, SHARP)),
    x,
    values,
    keys[3],
    num_steps=num_steps,
    **how,
  )
  about = {"num_samples": len(x), "images": reference.name}
  flows = {**about, "num_probes": num_probes, "rtol": rtol}
  blur = {"logsnr": _logsnr(width, BLURRED), **flows}
  sharp = _logsnr(width, SHARP)
  noisy = {"note": TRACE} if num_probes and num_importance > 1 else {}
  terms = ("prior", "diffusion", "reconstruction")
  return {
    "bpd_uniform": _entry(uniform, **blur),
    "bpd_importance": _entry(
      importance, num_importance=num_importance, **blur, **noisy
    ),
    "bpd_flow": _entry(flow, logsnr=sharp, **flows),
    "bpd_variational": _entry(
      chain,
      logsnr=sharp,
      num_steps=num_steps,
      **about,
      **{name: as_plain(getattr(chain, name)) for name in terms},
    ),
  }


def _logsnr(width, share):
  """Where sigma/alpha is width/share."""
  return 2.0 * math.log(share / width)


def _entry(found, **about):
  return {**as_plain(found.total), "of": found.of, **about}, found
