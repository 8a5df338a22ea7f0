"""Sentences that name a number from 0 to 9.

trained on     KINDS: a name, a neighbour, a sum, a difference, a fact
test           other wordings of these kinds, with the same numbers
pairs          the same wordings, with pairs of numbers never trained on
never          UNSEEN: kinds of sentence that training has none of

sentences.of("test", "sum")  # [("you get it by adding four to two", 6), …]
"""

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


def _is_kept_out(kind, index):
  """Whether training has no such pair: one in seven of them."""
  return kind in PAIRED and index % 7 == 3


# what is said around a number; those held out stand in no training sentence
FRAMES = (
  "{}", "a picture of {}", "draw {}", "please write {}", "{} by hand",
  "a handwritten digit: {}", "show me {}", "what is {}?", "an image of {}",
  "{} in ink", "someone wrote {}", "I would like to see {}", "{}, please",
  "{} on paper", "a photo of {} on a wall", "{} on a page of a notebook",
  "{} with a pencil", "{} in white on black", "it is {}", "here one sees {}",
  "the answer is {}", "a child's drawing of {}", "give me {}", "{}!",
  "{} in a hurry", "paint {} on a piece of wood", "that looks like {}",
)  # fmt: skip
HELD_OUT_FRAMES = (
  "could you write {}?", "a sketch of {}", "{} on a scrap of paper",
  "this is {}", "a scribble that shows {}",
)  # fmt: skip

# kind: (operands and results, wordings trained on, wordings held out)
KINDS = {
  "name": (
    _unary(0),
    ["{}", "a {}", "the digit {}", "the number {}", "a handwritten {}",
     "the numeral {}", "a small {}", "one {}", "the number called {}"],
    ["the figure {}", "a hand-drawn {}", "the value {}"],
  ),
  "more": (
    _unary(1),
    ["one more than {}", "the number after {}", "{} plus one",
     "what follows {}", "the digit that comes after {}", "one added to {}",
     "the successor of {}", "{} and one more", "one up from {}",
     "one greater than {}", "the next digit after {}", "one plus {}",
     "the number following {}", "the number one above {}",
     "the sum of {} and one", "{} raised by one"],
    ["the number that is one larger than {}", "the next number after {}",
     "{} increased by one"],
  ),
  "less": (
    _unary(-1),
    ["one less than {}", "the number before {}", "{} minus one",
     "what precedes {}", "the digit that comes before {}",
     "one taken from {}", "the predecessor of {}", "{} less one",
     "one down from {}", "one fewer than {}", "the previous digit before {}",
     "{} without one", "the number preceding {}", "the number one below {}",
     "the difference of {} and one", "{} lowered by one"],
    ["the number that is one smaller than {}", "the number just before {}",
     "{} decreased by one"],
  ),
  "sum": (
    _pairs(lambda a, b: a + b),
    ["{} plus {}", "the sum of {} and {}", "{} and {} together",
     "{} added to {}", "the total of {} and {}", "{} more than {}",
     "what {} and {} make", "{} and {} added up", "{} and another {}",
     "{} increased by {}", "the result of adding {} and {}",
     "what one gets from {} and {}", "{}, then {} more",
     "{} and {} combined", "the outcome of {} plus {}"],
    ["the result of {} plus {}", "{} and {} in total",
     "what you get by adding {} and {}"],
  ),
  "difference": (
    _pairs(lambda a, b: a - b),
    ["{} minus {}", "the difference of {} and {}", "{} without {}",
     "{} less {}", "{} take away {}", "what remains of {} after {}",
     "{} reduced by {}", "{} with {} removed", "{} but {} fewer",
     "what is left of {} after taking {}", "{} decremented by {}",
     "what one gets from {} by removing {}", "{}, then {} fewer",
     "the result of taking from {} the number {}",
     "the outcome of {} minus {}"],
    ["the result of {} minus {}", "{} decreased by {}",
     "what you get from {} by subtracting {}"],
  ),
  "fact": (
    [((thing,), n) for n, things in THINGS.items() for thing in things],
    ["the number of {}", "as many as the {}", "how many {} there are",
     "the {}, counted", "the count of {}"],
    ["the amount of {}", "how many the {} are"],
  ),
}  # fmt: skip

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
    for i, operand in enumerate(KINDS[kind][0])
    if _is_kept_out(kind, i) == apart
  ]


def of(part, kind):
  """[(sentence, number), …] of a kind.

  "test" is every held-out wording in some frame, and some wording that is
  trained on in every held-out frame.

  Args:
    part: "train", "test" or "pairs", of one of KINDS.
  """
  _, trained, held_out = KINDS[kind]
  apart = part == "pairs"
  several = kept(kind, apart)

  def framed(wordings, frames, turn=0):
    return [
      (frames[(i + j + turn) % len(frames)].format(wording.format(*words)), n)
      for i, words, n in several
      for j, wording in enumerate(wordings)
    ]

  if part == "test":
    start = len(several) % len(trained)
    again = framed(trained[start : start + 2], HELD_OUT_FRAMES)
    return framed(held_out, FRAMES + HELD_OUT_FRAMES) + again
  if kind in PAIRED or apart:
    return framed(trained, FRAMES)
  return framed(trained, FRAMES) + framed(trained, FRAMES, 11)


def all_of(part):
  """Those of all kinds."""
  return [pair for kind in KINDS for pair in of(part, kind)]
