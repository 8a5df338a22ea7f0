"""Judges runs that are told something: what they were told against what came.

  python benchmarks/conditions.py captions runs/captions captions.png
  python benchmarks/conditions.py super_resolution runs/super super.png
  python benchmarks/conditions.py parameters runs/parameters parameters.png
  python benchmarks/conditions.py styled_digits runs/styled styled.png

of the config of that name. Prints numbers, and draws a picture to look at.
"""

import sys

import numpy as np

import diffflow_jax as dfj
from diffflow_jax import data, plots
from diffflow_jax.data import sentences
from diffflow_jax.data.gaussian_process import NAME, covariance
from diffflow_jax.data.styled_digits import standardised, style
from diffflow_jax.data.super_resolution import smaller
from diffflow_jax.plots.figures import subplots


def floats(dataset):
  """All its examples as the network sees them."""
  return np.asarray(dataset.to_float(dataset.x))


def reader():
  """(images -> digits, its accuracy on held-out digits): a support vector one.

  Of the real digits that training has.
  """
  from sklearn import svm

  train, test = data.digits("train"), data.digits("test")
  rows = lambda x: np.asarray(x).reshape(len(x), -1)
  fitted = svm.SVC(gamma=0.03, C=10.0).fit(rows(floats(train)), train.labels)
  accuracy = fitted.score(rows(floats(test)), test.labels)
  return lambda x: fitted.predict(rows(x)), accuracy


# wordings of the kinds trained on by someone who had not tuned those
BY_ANOTHER_HAND = {
  "name": (
    "please show me the digit {}", "someone wrote {} on paper",
    "this shows a {}", "an image of the number {}", "my handwritten {}",
    "I would like a {}", "{} drawn with a marker", "the digit is {}",
  ),
  "more": (
    "the number that comes right after {}", "one step above {}",
    "take {} and add one", "count one further than {}", "{} made larger by one",
  ),
  "less": (
    "the number that comes right before {}", "one step below {}",
    "take one away from {}", "count one back from {}", "{} made smaller by one",
  ),
  "sum": ("please add {} and {}", "how much is {} plus {}?"),
  "difference": (
    "how much is {} minus {}?", "start with {} and take away {}",
  ),
}  # fmt: skip


def by_another_hand(kind):
  """[(sentence, number), …] of words and pairs that training has."""
  operands = [words for _, words, _ in sentences.kept(kind)]
  numbers = [number for _, _, number in sentences.kept(kind)]
  known = {sentence for sentence, _ in sentences.all_of("train")}
  said = [
    (wording.format(*words), number)
    for words, number in zip(operands, numbers, strict=True)
    if all(word in sentences.WORDS for word in words)
    for wording in BY_ANOTHER_HAND[kind]
  ]
  return [pair for pair in said if pair[0] not in known]


def captions(run, path):
  """Samples that are read as the number that their sentence names."""
  read, accuracy = reader()
  print(f"real held-out digits that the reader reads: {accuracy:.3f}")
  groups = {"trained on": sentences.all_of("train")[::10]}
  parts = {"new sentence": "test", "new pair": "pairs"}
  for text, part in parts.items():
    for kind in sentences.KINDS:
      groups[f"{text}: {kind}"] = sentences.of(part, kind)
  for kind in BY_ANOTHER_HAND:
    groups[f"another hand: {kind}"] = by_another_hand(kind)
  for kind, pairs in sentences.UNSEEN.items():
    groups[f"never seen: {kind}"] = pairs
  groups = {name: pairs for name, pairs in groups.items() if pairs}
  pairs = [pair for group in groups.values() for pair in group]
  encoder = run.config.dataset.encoder
  value, mask = data.embed([s for s, _ in pairs], encoder)
  samples = run.sample(
    len(pairs), conditions={"text": (value.astype(np.float32), mask)}
  )
  is_right = read(samples) == np.array([n for _, n in pairs])
  start, right = 0, {}
  for name, group in groups.items():
    right[name] = is_right[start : start + len(group)]
    start += len(group)
    print(f"{name:25s} {len(group):4d} {right[name].mean():.3f}")
  for text in ("new sentence", "new pair", "another hand", "never seen"):
    every = np.concatenate([r for name, r in right.items() if text in name])
    print(f"{text + ', all':25s} {len(every):4d} {every.mean():.3f}")
  _captioned(path, samples, pairs, is_right)


def _captioned(path, samples, pairs, is_right, num=40):
  """Some of the samples, each below its sentence; red where it is misread."""
  chosen = np.linspace(len(pairs) // 5, len(pairs) - 1, num).astype(int)
  figure, axes = subplots(8, 5, figsize=(13, 14))
  for ax, i in zip(axes.ravel(), chosen, strict=True):
    ax.imshow(samples[i, ..., 0], cmap="gray", vmin=-1, vmax=1)
    colour = "black" if is_right[i] else "C3"
    ax.set_title(pairs[i][0], fontsize=7, color=colour)
    ax.set_axis_off()
  figure.savefig(path, dpi=70)


def psnr(a, b):
  """Of images in [-1, 1], mean over them, in decibels."""
  mse = np.mean((a - b) ** 2, axis=(1, 2, 3))
  return float(np.mean(10 * np.log10(4.0 / np.maximum(mse, 1e-10))))


def bicubic(low, side):
  """Images (num, h, w, 1), enlarged by Pillow's bicubic kernel."""
  from PIL import Image

  one = lambda image: np.asarray(
    Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
  )
  large = np.stack([one(image) for image in low[..., 0].astype(np.float32)])
  return np.clip(large, -1.0, 1.0)[..., None]


def super_resolution(run, path, num=256, each=4):
  """Samples of held-out small images: PSNR, and whether they agree."""
  settings = dict(run.config.dataset, split="test")
  del settings["name"]
  test = data.super_resolution(**settings)
  batch = test.take(np.arange(num))
  x, low = np.asarray(test.to_float(batch["x"])), batch["low"]
  drawn = [
    np.clip(run.sample(num, conditions={"low": low}, seed=seed), -1, 1)
    for seed in range(each)
  ]
  enlarged = bicubic(low, x.shape[1])
  factor = x.shape[1] // low.shape[1]
  error = lambda y: np.sqrt(np.mean((smaller(y, factor) - low) ** 2)) / 2.0
  print(f"PSNR of bicubic              {psnr(enlarged, x):.2f} dB")
  print(f"PSNR of one sample           {psnr(drawn[0], x):.2f} dB")
  print(
    f"PSNR of a mean of {each} samples  {psnr(sum(drawn) / each, x):.2f} dB"
  )
  print(f"RMSE of what was told, bicubic    {error(enlarged):.2%} of the range")
  print(f"RMSE of what was told, one sample {error(drawn[0]):.2%} of the range")
  near = np.repeat(np.repeat(low, factor, 1), factor, 2)
  rows = [near, enlarged, drawn[0], drawn[1], x]
  shown = np.concatenate([row[:12] for row in rows])
  picture = plots.image_grid(shown, columns=12)
  figure, ax = subplots(figsize=(9, 4))
  ax.imshow(picture[..., 0], cmap="gray")
  names = ["told", "bicubic", "sample", "another", "truth"]
  ax.set_yticks((np.arange(5) + 0.5) * (x.shape[1] + 1), names)
  ax.set_xticks([])
  figure.savefig(path, dpi=90)


def parameters(run, path, num=2000):
  """The covariance of samples under four laws, against the true one."""
  dataset = data.gaussian_process(num_points=run.card.shape[0])
  law = dataset.density
  corners = np.array([(-0.7, -0.7), (-0.7, 0.7), (0.7, -0.7), (0.7, 0.7)])
  gaps = {k: v[-1] for k, v in run.metrics.items() if "gap" in k}
  for name, gap in gaps.items():
    mse = run.metrics[name.replace("gap", "eps_mse")][-1]
    print(f"{name:32s} {gap:.5f}, {gap / (mse - gap):.2%} of the exact loss")
  figure, axes = subplots(2, 4, figsize=(12, 6))
  rng = np.random.default_rng(0)
  for told, above, below in zip(corners, *axes, strict=True):
    scale, amplitude = law.scales(told[None])
    true = covariance(law.places, scale, amplitude)[0]
    samples = run.sample(num, conditions={NAME: np.tile(told, (num, 1))})
    ours = np.cov(samples[..., 0].T)
    ideal = np.cov(
      np.linalg.cholesky(true) @ rng.standard_normal((len(true), num))
    )
    off = lambda c, true=true: np.linalg.norm(c - true) / np.linalg.norm(true)
    said = f"l = {scale[0]:.3f}, a = {amplitude[0]:.2f}"
    print(f"{said}: covariance off by {off(ours):.1%}, draws {off(ideal):.1%}")
    reach = true.max()
    above.imshow(ours, vmin=-reach, vmax=reach, cmap="RdBu_r")
    above.set_title(said)
    below.imshow(true, vmin=-reach, vmax=reach, cmap="RdBu_r")
  axes[0, 0].set_ylabel("covariance of samples")
  axes[1, 0].set_ylabel("true covariance")
  figure.savefig(path, dpi=80)


def styled_digits(run, path, num=500):
  """What guidance by the style alone, or by the label alone, changes."""
  read, accuracy = reader()
  print(f"real held-out digits that the reader reads: {accuracy:.3f}")
  rng = np.random.default_rng(0)
  labels = np.arange(num) % 10
  asked = rng.uniform(-1.5, 1.5, (num, 2)).astype(np.float32)
  given = {"label": labels, "style": asked}
  shown = []
  for strength, guided in (
    (1.0, None), (3.0, ("style",)), (3.0, ("label",)), (3.0, None),
  ):  # fmt: skip
    samples = run.sample(
      num, conditions=given, guidance=strength, guided=guided
    )
    came = standardised(style(samples))
    slopes = [np.polyfit(asked[:, i], came[:, i], 1)[0] for i in range(2)]
    off = np.sqrt(np.mean((came - asked) ** 2, axis=0))
    by = " and ".join(guided or ("label", "style"))
    print(
      f"guidance {strength:g} by {by:15s}: read as its label "
      f"{np.mean(read(samples) == labels):.3f}; ink, slant for each asked "
      f"{slopes[0]:.2f}, {slopes[1]:.2f} (RMSE {off[0]:.2f}, {off[1]:.2f})"
    )
    shown.append(samples)
  ladder = np.linspace(-1.5, 1.5, 8)
  told = np.array([(0.0, s) for s in ladder] + [(i, 0.0) for i in ladder])
  labels = np.repeat([3, 7, 1, 4], len(told))
  samples = run.sample(
    len(labels),
    conditions={"label": labels, "style": np.tile(told, (4, 1))},
    guidance=2.0,
  )
  figure, ax = subplots(figsize=(9, 3))
  ax.imshow(plots.image_grid(samples, columns=16)[..., 0], cmap="gray")
  ax.set_title("slant from left to right, then ink from left to right")
  ax.set_axis_off()
  figure.savefig(path, dpi=90)


JUDGES = {
  judge.__name__: judge
  for judge in (captions, super_resolution, parameters, styled_digits)
}

if __name__ == "__main__":
  JUDGES[sys.argv[1]](dfj.load(sys.argv[2]), sys.argv[3])
