"""How good samples are, and how sure that is.

Every metric is a function of features, (num, ...) arrays, samples first and the
reference second, and returns `Estimate`s: value, standard error, 95 % interval.
"""

from diffflow_jax.evaluation.bits import (
  decoder_bits,
  flow_density,
  truncated_normal_bits,
  uniform_bits,
)
from diffflow_jax.evaluation.classes import (
  inception_score,
  label_agreement,
  label_reliability,
)
from diffflow_jax.evaluation.distances import (
  frechet_distance,
  nearest_distances,
)
from diffflow_jax.evaluation.estimates import Estimate
from diffflow_jax.evaluation.extractors.classifier import classifier
from diffflow_jax.evaluation.extractors.dinov2 import dinov2
from diffflow_jax.evaluation.extractors.extractor import Features
from diffflow_jax.evaluation.extractors.fid_features import inception
from diffflow_jax.evaluation.extractors.images import are_images, to_bytes
from diffflow_jax.evaluation.extractors.spec import features_of
from diffflow_jax.evaluation.fid import (
  frechet,
  frechet_floor,
  frechet_of_gaussians,
)
from diffflow_jax.evaluation.held_out import eps_mse_by_logsnr
from diffflow_jax.evaluation.known import (
  gaussian_kl,
  kl,
  log_likelihood,
  mode_shares,
)
from diffflow_jax.evaluation.pairwise.coverage import expected_coverage, prdc
from diffflow_jax.evaluation.pairwise.kernels import (
  energy_distance,
  kid,
  median_distance,
  mmd,
)
from diffflow_jax.evaluation.pairwise.memorisation import (
  authenticity,
  distance_ratio,
  nearer_to_train,
)
from diffflow_jax.evaluation.pairwise.neighbours import nearest
from diffflow_jax.evaluation.pairwise.pairs import Pairs
from diffflow_jax.evaluation.pairwise.within import Within
from diffflow_jax.evaluation.reference import (
  dataset_statistics,
  feature_chunks,
  fingerprint,
  read_images,
  read_statistics,
  write_statistics,
)
from diffflow_jax.evaluation.reference_spec import Reference, reference_of
from diffflow_jax.evaluation.sliced import sliced_wasserstein
from diffflow_jax.evaluation.streaming import Moments, moments, moments_in_parts
from diffflow_jax.evaluation.two_sample import classifier_two_sample
from diffflow_jax.evaluation.variational import variational_bits

__all__ = [
  "Estimate",
  "Features",
  "Moments",
  "Pairs",
  "Reference",
  "Within",
  "are_images",
  "authenticity",
  "classifier",
  "classifier_two_sample",
  "dataset_statistics",
  "decoder_bits",
  "dinov2",
  "distance_ratio",
  "energy_distance",
  "eps_mse_by_logsnr",
  "expected_coverage",
  "feature_chunks",
  "features_of",
  "fingerprint",
  "flow_density",
  "frechet",
  "frechet_distance",
  "frechet_floor",
  "frechet_of_gaussians",
  "gaussian_kl",
  "inception",
  "inception_score",
  "kid",
  "kl",
  "label_agreement",
  "label_reliability",
  "log_likelihood",
  "median_distance",
  "mmd",
  "mode_shares",
  "moments",
  "moments_in_parts",
  "nearer_to_train",
  "nearest",
  "nearest_distances",
  "prdc",
  "read_images",
  "read_statistics",
  "reference_of",
  "sliced_wasserstein",
  "to_bytes",
  "truncated_normal_bits",
  "uniform_bits",
  "variational_bits",
  "write_statistics",
]
