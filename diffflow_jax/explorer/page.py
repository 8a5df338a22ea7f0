"""The page: a template, a style, two scripts and the numbers, in one file."""

import base64
import gzip
import importlib.resources
import json

import numpy as np

from diffflow_jax.explorer import tables, world

DIGITS = 10  # of every number: errors of 1e-10 in tables


def _plain(value):
  """value with arrays as lists, and numbers of few digits."""
  if isinstance(value, dict):
    return {str(key): _plain(part) for key, part in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(part) for part in value]
  if isinstance(value, str) or value is None:
    return value
  array = np.asarray(value)
  if array.ndim:
    return [_plain(part) for part in array]
  if array.dtype.kind in "iu":
    return int(array)
  return float(f"{float(array):.{DIGITS}g}")


def numbers():
  """All that the scripts read, as JSON knows it."""
  return _plain({**world.describe(), **tables.describe()})


def _asset(name):
  home = importlib.resources.files("diffflow_jax.explorer")
  return (home / name).read_text(encoding="utf-8")


def core():
  """The script that runs tables: no page is needed for it."""
  return _asset("core.js")


def html():
  """The whole page, which reads nothing from elsewhere."""
  text = json.dumps(numbers(), allow_nan=False)
  packed = gzip.compress(text.encode(), mtime=0)
  parts = {
    "/*STYLE*/": _asset("page.css"),
    "/*CORE*/": core(),
    "/*UI*/": _asset("ui.js"),
    "/*NUMBERS*/": base64.b64encode(packed).decode(),
  }
  page = _asset("page.html")
  for place, text in parts.items():
    page = page.replace(place, text)
  return page
