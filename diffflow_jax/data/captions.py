"""Digits told of by a sentence that names their number.

`digits` of `sentences`, each word piece a vector of the encoder:

    "minilm"    all-MiniLM-L6-v2, of a package with its weights (`minilm`)
    "words"     a random vector for every word: knows no likeness, needs nothing
"""

import contextlib
import dataclasses
import hashlib
import os
import zipfile
import zlib

import numpy as np

from diffflow_jax.data import checks, minilm, sentences
from diffflow_jax.data.arrays import Arrays, indices, rows_of
from diffflow_jax.data.digits import digits
from diffflow_jax.process.conditions import Condition
from diffflow_jax.store import paths

LENGTH = 20  # the most word pieces of a sentence, and its start and end
ENCODERS = ("minilm", "words")
SPLITS = ("train", "test")
CHUNK = 64  # sentences at a time


@dataclasses.dataclass(frozen=True)
class Captioned:
  """Images, and for each a sentence that was written of its class.

  Another one every time that it is trained on, the same by its index.

  Attributes:
    images: labelled; value (num, length, d), mask: of the sentences.
    number: (num,), the class that each is of, in rising order.
  """

  images: Arrays
  value: np.ndarray
  mask: np.ndarray
  number: np.ndarray
  num_classes = 0  # the network is told the sentence alone

  x = property(lambda self: self.images.x)
  shape = property(lambda self: self.images.shape)
  max_value = property(lambda self: self.images.max_value)

  @property
  def conditions(self):
    """{"text": a sequence}."""
    return {"text": Condition("sequence", self.value.shape[1:])}

  def __len__(self):
    return len(self.images)

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`: dict(x, text, text_mask)."""
    rng = np.random.Generator(np.random.Philox(key=[seed, step]))
    u = rng.random(size)[rows_of(process, num_processes, size)]
    index = indices(len(self), seed, step, size, process, num_processes)
    return self._told(index, u)

  def take(self, index):
    """The examples of an array of indices, as in a batch."""
    u = np.random.Generator(np.random.Philox(key=0)).random(len(self))
    return self._told(index, u[index])

  def augment(self, key, x):
    return self.images.augment(key, x)

  def to_float(self, x):
    return self.images.to_float(x)

  def _told(self, index, u):
    """Sentence floor(u m) of the m of each example's class."""
    batch = self.images.take(index)
    first = np.searchsorted(self.number, batch["label"])
    count = np.searchsorted(self.number, batch["label"], "right") - first
    chosen = first + (u * count).astype(int)
    text = self.value[chosen].astype(np.float32)
    return {"x": batch["x"], "text": text, "text_mask": self.mask[chosen]}


def captions(split="train", encoder="minilm"):
  """8x8 digits and `text`, a sequence of vectors (20, 384) with its mask.

  The wordings of split="test" are those that training has none of.

  Raises:
    ValueError: unknown split or encoder; the encoder is not installed.
  """
  checks.check_choice("split", split, SPLITS)
  pairs = sorted(sentences.all_of(split), key=lambda pair: pair[1])
  value, mask = embed([sentence for sentence, _ in pairs], encoder)
  number = np.array([n for _, n in pairs])
  return Captioned(digits(split), value, mask, number)


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
  with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
    with open(path, "rb") as file:
      kept = np.load(file)
      return kept["value"], kept["mask"]
  arrays = _filled(texts, minilm.tokens, minilm.encode)
  _keep(path, *arrays)
  return arrays


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
  """Writes them whole or not at all; without room, they are made again."""
  partial = f"{path}.{os.getpid()}.npz"
  with contextlib.suppress(OSError):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    np.savez(partial, value=value, mask=mask)
    os.replace(partial, path)
