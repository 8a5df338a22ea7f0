"""Sentences that name a number from 0 to 9.

trained on     KINDS: a name, a neighbour, a sum, a difference, a fact
test           other wordings of these kinds, with the same numbers
pairs          the same wordings, with pairs of numbers never trained on
never          UNSEEN: kinds of sentence that training has none of

sentences.of("test", "sum")  # [("you get it by adding four to two", 6), …]
"""

import zlib

from diffflow_jax.data.wordings import (
  ASKING,
  FRAMES,
  HELD_OUT_FRAMES,
  WORDINGS,
)

WORDS = (
  "zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
  "nine",
)  # fmt: skip
PARTS = ("train", "test", "pairs")
PAIRED = ("sum", "difference")

# what there are so many of, as far as anyone knows
THINGS = {
  0: ["corners of a circle", "wheels of a sledge", "legs of a snake"],
  1: ["horns of a unicorn", "wheels of a unicycle", "suns in our sky"],
  2: ["wheels of a bicycle", "wings of a bird", "ears of a cat"],
  3: ["sides of a triangle", "wheels of a tricycle", "primary colours"],
  4: ["legs of a dog", "seasons of a year", "sides of a square"],
  5: ["fingers of a hand", "sides of a pentagon", "toes of a foot"],
  6: ["legs of an insect", "sides of a hexagon", "faces of a cube"],
  7: ["days of a week", "colours of the rainbow", "dwarfs of Snow White"],
  8: ["arms of an octopus", "legs of a spider", "sides of an octagon"],
  9: ["lives of a cat", "players of a baseball team", "muses of the Greeks"],
}


def _unary(shift):
  """((form of the number, result), …) where number + shift is a digit."""
  return [
    ((form,), n + shift)
    for n in range(10)
    if 0 <= n + shift < 10
    for form in (WORDS[n], str(n))
  ]


def _pairs(result):
  pairs = [(a, b) for a in range(10) for b in range(10)]
  return [
    ((WORDS[a], WORDS[b]), result(a, b))
    for a, b in pairs
    if 0 <= result(a, b) < 10
  ]


def _is_kept_out(kind, index, words):
  """Whether training has no such pair: one in seven, as no neighbour is."""
  return kind in PAIRED and index % 7 == 3 and "one" not in words


# kind: operands and results
OPERANDS = {
  "name": _unary(0),
  "more": _unary(1),
  "less": _unary(-1),
  "sum": _pairs(lambda a, b: a + b),
  "difference": _pairs(lambda a, b: a - b),
  "fact": [((thing,), n) for n, things in THINGS.items() for thing in things],
}
KINDS = tuple(OPERANDS)

UNSEEN = {
  "twice": [
    (wording.format(WORDS[n]), 2 * n)
    for n in range(5)
    for wording in ("twice {}", "the double of {}", "{} times two")
  ],
  "half": [
    (wording.format(WORDS[2 * n]), n)
    for n in range(5)
    for wording in ("half of {}", "{} divided by two")
  ],
  "between": [
    (f"the number between {WORDS[n - 1]} and {WORDS[n + 1]}", n)
    for n in range(1, 9)
  ],
  "three terms": [
    (wording.format(WORDS[n]), n + 2)
    for n in range(8)
    for wording in ("{} plus one plus one", "one plus {} plus one")
  ],
  "ordinal": [
    (f"the {name} number", n)
    for n, name in enumerate(
      "first second third fourth fifth sixth seventh eighth ninth".split(), 1
    )
  ],
  "Roman": [
    (f"a handwritten {numeral}", n)
    for n, numeral in enumerate("I II III IV V VI VII VIII IX".split(), 1)
  ],
  "German": [
    (f"eine handgeschriebene {name}", n)
    for n, name in enumerate(
      "Null Eins Zwei Drei Vier Fünf Sechs Sieben Acht Neun".split()
    )
  ],
}


def kept(kind, apart=False):
  """[(index, words, number), …] that a kind has, or that are kept apart."""
  return [
    (i, *operand)
    for i, operand in enumerate(OPERANDS[kind])
    if _is_kept_out(kind, i, operand[0]) == apart
  ]


def of(part, kind):
  """[(sentence, number), …] of a kind.

  "test" is every held-out wording in some frame, and some wording that is
  trained on in every held-out frame.

  Args:
    part: "train", "test" or "pairs", of one of KINDS.
  """
  nouns, requests, held_out = WORDINGS[kind]
  apart = part == "pairs"
  several = kept(kind, apart)
  if part == "test":
    start = len(several) % len(nouns)
    again = _framed(several, nouns[start : start + 2], HELD_OUT_FRAMES)
    return _framed(several, held_out, FRAMES + HELD_OUT_FRAMES) + again
  made = _framed(several, nouns, FRAMES) + _framed(several, requests, ASKING)
  return made + (_framed(several, nouns, FRAMES, 1) if kind == "name" else [])


def _framed(several, wordings, frames, turn=0):
  """Wordings of every operand, each in a frame that chance has chosen."""
  made = []
  for _, words, n in several:
    for wording in wordings:
      said = wording.format(*words)
      chance = zlib.crc32(said.encode()) + turn
      made.append((frames[chance % len(frames)].format(said), n))
  return made


def all_of(part):
  """Those of all kinds."""
  return [pair for kind in KINDS for pair in of(part, kind)]
