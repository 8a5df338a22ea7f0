"""Trains a small classifier, whose features samples are judged by.

  python -m diffflow_jax.train_features --config=configs/features_digits.py \\
      --workdir=runs/features_digits

The workdir gets classifier.safetensors and classifier.json: what it is, of
which data, and its accuracy on held-out examples, which it is never trained on.
Then --features=classifier:runs/features_digits of `evaluate` takes the numbers
before its last layer as features, and its classes for label agreement.

Seconds to minutes on a CPU, so a run that was killed starts anew.
"""

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Failure, Refusal

FIELDS = (
  "seed", "num_steps", "batch_size", "optimizer", "learning_rate", "clip_norm",
  "shift", "dataset", "held_out", "network",
)  # fmt: skip


def main(argv):
  """Trains a classifier, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  cli.define_config(values, argv)
  flags.DEFINE_string("workdir", None, "Folder to write.", flag_values=values)
  cli.parse(values, argv, __doc__, required=("config", "workdir"))
  config = cli.chosen_config(values)
  _check_fields(config)

  from diffflow_jax.evaluation.extractors import classifier
  from diffflow_jax.store import paths

  record = paths.join(values.workdir, classifier.CARD)
  if paths.exists(record):
    raise Refusal(
      f"--workdir {values.workdir} holds a classifier: take another one, or "
      f"delete its {classifier.CARD}"
    )
  _train(config, values.workdir, *resolved(config))


def _check_fields(config):
  for name in config:
    if name not in FIELDS:
      raise Refusal(f"config.{name}: {cli.unknown(name, FIELDS)}")
  for name in FIELDS:
    if name not in config:
      raise Refusal(f"config.{name} is missing")


def resolved(config):
  """(training data, (held-out data, num), network, optimizer) of a config."""
  from diffflow_jax.data import splits
  from diffflow_jax.evaluation.extractors import classifier, images
  from diffflow_jax.runs import checks, datasets, lookup
  from diffflow_jax.training.optimizers import make_optimizer

  ranges = dict.fromkeys(("num_steps", "batch_size"), "an integer >= 1")
  ranges |= dict(shift="an integer >= 0", seed="an integer >= 0")
  for name, allowed in {**ranges, "clip_norm": "> 0"}.items():
    checks.in_range(f"config.{name}", config[name], allowed)
  train, held = datasets.of(config)
  if not train.num_classes or not images.are_images(train.shape):
    raise Refusal(
      "config.dataset must be images of 1 or 3 channels with labels, not of "
      f"shape {tuple(train.shape)} with {train.num_classes} classes"
    )
  if held is None or not splits.is_finite(held[0]):
    raise Refusal("config.held_out must name examples, for the accuracy")
  try:
    splits.check_apart(train, *held)
  except ValueError as error:
    raise Refusal(f"config.held_out: {error}") from error
  checks.check_sizes(dict(config.network))
  known = {"Classifier": classifier.Classifier}
  spec = {"name": "Classifier", **dict(config.network)}
  net = lookup.choose("network", spec, known, num_classes=train.num_classes)
  return train, held, net, make_optimizer(config)[0]


def _train(config, workdir, train, held, net, tx):
  import os

  from diffflow_jax.evaluation import reference
  from diffflow_jax.evaluation.extractors import classifier, classifier_fit
  from diffflow_jax.store import paths

  try:
    if not paths.is_remote(workdir):
      os.makedirs(workdir, exist_ok=True)
  except OSError as error:
    raise Refusal(f"--workdir {workdir}: {paths.reason(error)}") from error
  names = ("seed", "num_steps", "batch_size", "shift")
  settings = {name: config[name] for name in names}
  try:
    params = classifier_fit.fit(net, train, tx, **settings)
  except FloatingPointError as error:
    raise Failure(f"{error}: a lower config.learning_rate may help") from error
  right, num = classifier_fit.hits(net, params, *held), held[1]
  names = getattr(train, "class_names", ()) or map(str, range(net.num_classes))
  about = dict(
    shape=list(train.shape),
    classes=list(names),
    channels=list(net.channels),
    width=net.width,
    hits=right,
    num=num,
    trained_on=reference.fingerprint(train),
    config=config.to_dict(),
  )
  classifier.write(workdir, params, about)
  print(
    f"{right / num:.2%} of {num} held-out examples right; "
    f"--features=classifier:{workdir}"
  )
