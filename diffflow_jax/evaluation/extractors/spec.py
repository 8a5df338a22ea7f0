"""Features by one line of text, as a command's flag has it.

    pixels                                the numbers as they are
    inception:FILE[,resize=clean]         FID's
    dinov2:FILE                           FD_DINOv2's
    classifier:FOLDER                     what `train_features` left there
    module:attribute                      a function of one's own

FILE and FOLDER are on a disk or in a bucket. Of `inception` and `dinov2`
checksum=any takes weights other than the published ones.
"""

import dataclasses
import difflib

from diffflow_jax.evaluation.extractors import (
  classifier,
  dinov2,
  fid_features,
  images,
  own,
)

# kind: (what makes it of a path, its settings)
FILES = {
  "inception": (fid_features.inception, ("resize", "checksum", "batch_size")),
  "dinov2": (dinov2.dinov2, ("checksum", "batch_size")),
  "classifier": (classifier.classifier, ("batch_size",)),
}


def features_of(spec, card):
  """The `Features` that a text names, for the data of a run.

  Args:
    spec: as the module says; card: what has the `shape` of an example, and may
      have `class_names`, as `dfj.load(run).card` and every data set here.
  Raises:
    ValueError: an unknown name or setting, a file that is none, data that is
      nothing for it.
  """
  if not isinstance(spec, str):
    raise ValueError(
      f"features must be a text, as pixels, not a {type(spec).__name__}"
    )
  shape = tuple(card.shape)
  kind, colon, rest = spec.partition(":")
  if spec == "pixels":
    return own.pixels(shape)
  if kind in FILES and colon:
    if not images.are_images(shape):
      raise ValueError(
        f"{kind} takes images of 1 or 3 channels, and examples have shape "
        f"{shape}: take pixels, or module:attribute"
      )
    make, known = FILES[kind]
    path, settings = _settings(kind, rest, known)
    return _for_data(make(path, **settings), card)
  if colon and kind and rest:
    return own.imported(spec, shape)
  known = ["pixels", *(f"{k}:PATH" for k in FILES)]
  near = difflib.get_close_matches(kind, ["pixels", *FILES], n=1)
  meant = f"{near[0]}:PATH" if near and near[0] in FILES else "".join(near)
  guess = f"; did you mean {meant}?" if meant else ""
  raise ValueError(
    f"features {spec!r} are not known: {', '.join(known)}, or module:attribute"
    f"{guess}"
  )


def _settings(kind, text, known):
  """(path, settings) of "PATH,setting=value,…"."""
  path, *parts = text.split(",")
  settings = {}
  for part in parts:
    name, equals, value = part.partition("=")
    if not equals:
      path = f"{path},{part}"  # a comma of its own
      continue
    if name not in known:
      raise ValueError(
        f"{name} is not a setting of {kind}; known: {', '.join(known)}"
      )
    settings[name] = _batch(value) if name == "batch_size" else value
  if not path:
    raise ValueError(f"{kind} needs a path, as {kind}:PATH")
  return path, settings


def _batch(text):
  if not text.isdigit():
    raise ValueError(f"batch_size must be an integer >= 1, not {text!r}")
  return int(text)


def _for_data(features, card):
  """The features, without classes that are not those of the data.

  Raises:
    ValueError: they take images of another shape.
  """
  if features.shape not in (None, tuple(card.shape)):
    raise ValueError(
      f"the {features.name} takes images of shape {features.shape}, and "
      f"examples have {tuple(card.shape)}"
    )
  names = tuple(getattr(card, "class_names", ()))
  num = getattr(card, "num_classes", 0)
  theirs = features.classes
  if theirs == names or (not names and len(theirs) == num):
    return features
  return dataclasses.replace(features, classes=(), accuracy=None)
