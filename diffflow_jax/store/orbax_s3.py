"""Orbax's checkpoints on s3://.

Orbax 0.12 asks for gs:// by name wherever it means "a bucket", while what it
stands on, epath and TensorStore, knows s3:// just as well. So four names of its
modules are given a second scheme; a test saves and restores on both.
"""

import os


def teach():
  """Makes Orbax take s3:// as it takes gs://."""
  from orbax.checkpoint._src.path import gcs_utils
  from orbax.checkpoint._src.serialization import tensorstore_utils

  if hasattr(gcs_utils.get_kvstore_for_gcs, "of_gcs"):
    return
  of_gcs = gcs_utils.get_kvstore_for_gcs

  def kvstore(path):
    return of_s3(path) if path.startswith("s3://") else of_gcs(path)

  kvstore.of_gcs = of_gcs
  buckets = ("gs://", "s3://")
  gcs_utils._GCS_PATH_PREFIX = buckets
  gcs_utils.get_kvstore_for_gcs = kvstore
  tensorstore_utils._use_gcs_driver = lambda path: path.startswith(buckets)
  tensorstore_utils._normalize_path = lambda path: (
    path.rstrip("/") if path.startswith(buckets) else os.path.normpath(path)
  )


def of_s3(path, environ=os.environ):
  """TensorStore's spec of a path, as boto reads the environment."""
  bucket, _, key = path.removeprefix("s3://").partition("/")
  spec = {"driver": "s3", "bucket": bucket, "path": key}
  endpoint = environ.get("AWS_ENDPOINT_URL_S3", environ.get("AWS_ENDPOINT_URL"))
  region = environ.get("AWS_REGION", environ.get("AWS_DEFAULT_REGION"))
  if endpoint:
    spec |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
  if "AWS_ACCESS_KEY_ID" in environ:  # else wherever boto would look
    spec["aws_credentials"] = {"type": "environment"}
  return spec
