"""Digits told of by a sentence that names their number.

`digits` of `sentences`, each word piece a vector of the encoder:

    "minilm"    all-MiniLM-L6-v2, of a package with its weights (`minilm`)
    "words"     a random vector for every word: knows no likeness, needs nothing
"""

import hashlib
import os
import zlib

import numpy as np

from diffflow_jax.data import checks, minilm, sentences
from diffflow_jax.data.digits import digits
from diffflow_jax.data.told import Told
from diffflow_jax.process.conditions import Condition
from diffflow_jax.store import paths

LENGTH = 20  # the most word pieces of a sentence, and its start and end
ENCODERS = ("minilm", "words")
CHUNK = 64  # sentences at a time
PARTS = {"train": "train", "test": "test", "all": "train"}


def captions(split="train", encoder="minilm"):
  """8x8 digits and `text`, a sequence of vectors (20, 384) with its mask.

  A digit gets another sentence of its number every time it is trained on. The
  wordings of split="test" are those held out.

  Raises:
    ValueError: unknown split or encoder; the encoder is not installed.
  """
  images = digits(split)
  pairs = sentences.all_of(PARTS[split])
  number = np.array([n for _, n in pairs])
  value, mask = embed([sentence for sentence, _ in pairs], encoder)
  order = np.argsort(number, kind="stable")  # those of a number stand together
  count = np.bincount(number, minlength=10)
  first = np.cumsum(count) - count

  def tell(batch, u):
    label = batch["label"]
    chosen = order[first[label] + (u * count[label]).astype(int)]
    return {
      "text": value[chosen].astype(np.float32),
      "text_mask": mask[chosen],
    }

  text = Condition("sequence", value.shape[1:], null="learned")
  return Told(images, {"text": text}, tell)


def embed(texts, encoder="minilm"):
  """(vectors (num, 20, 384) float16, mask (num, 20)) of sentences.

  Each vector has a mean square of 1. What was computed once is kept in the
  user's cache.

  Raises:
    ValueError: a sentence is too long, or the encoder is not installed.
  """
  checks.check_choice("encoder", encoder, ENCODERS)
  texts = list(texts)
  if encoder == "words":
    return _filled(texts, minilm.words, _word_vectors)
  path = _kept(texts)
  if not os.path.exists(path):
    arrays = _filled(texts, minilm.tokens, minilm.encode)
    _keep(path, *arrays)
    return arrays
  with np.load(path) as kept:
    return kept["value"], kept["mask"]


def _filled(texts, cut, encode):
  """Vectors and mask; sentences of one length go through together."""
  rows = [cut(text) for text in texts]
  value = np.zeros((len(rows), LENGTH, minilm.WIDTH), np.float16)
  mask = np.zeros((len(rows), LENGTH), bool)
  lengths = np.array([len(row) for row in rows], int)
  for i in np.flatnonzero((lengths > LENGTH) | (lengths == 0)):
    raise ValueError(
      f"a sentence must have 1 to {LENGTH} word pieces, not the "
      f"{lengths[i]} of {texts[i]!r}"
    )
  for length in np.unique(lengths):
    of_it = np.flatnonzero(lengths == length)
    for index in np.array_split(of_it, -(-len(of_it) // CHUNK)):
      h = encode(np.array([rows[i] for i in index]))
      h = h / np.sqrt((h**2).mean(-1, keepdims=True))
      value[index, :length], mask[index, :length] = h, True
  return value, mask


def _word_vectors(words):
  """A vector for each of an array of words, a function of its letters."""
  one = lambda word: np.random.Generator(
    np.random.Philox(key=zlib.crc32(word.encode()))
  ).standard_normal(minilm.WIDTH)
  return np.stack([[one(word) for word in row] for row in words.tolist()])


def _kept(texts):
  """Where vectors of these sentences are, or will be."""
  weights = os.path.join(minilm.folder(), "model.safetensors")
  what = repr([texts, LENGTH, os.path.getsize(weights)])
  key = hashlib.sha256(what.encode()).hexdigest()[:32]
  return os.path.join(paths.cache_directory(), "sentences", f"{key}.npz")


def _keep(path, value, mask):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  partial = f"{path}.{os.getpid()}.npz"
  np.savez(partial, value=value, mask=mask)
  os.replace(partial, path)  # whole, or not there
