"""Our docstrings as reStructuredText: indented blocks are formulas or code.

They are written to be read in an editor: a block indented after an empty line
is a formula, single backticks are code, and * or | mean themselves. "Equation
(ddim) of docs/math" becomes the number of that equation, and a link to it.
"""

import re

SECTION = re.compile(r"^\s*(Args|Returns|Raises|Attributes|Yields):$")
# "key: a PRNG key; x: clean data" are two arguments
NEXT = re.compile(r"; (?=\w+(?:, \w+)*: )")
CODE = re.compile(r"(`+[^`]+`+)")
EQUATION = re.compile(r"Equation \((\w+)\) of docs/math")
SPECIAL = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")


def indent_of(line):
  return len(line) - len(line.lstrip())


def escaped(line):
  """A line of text whose only markup is code in backticks."""
  parts = CODE.split(line)
  for i, part in enumerate(parts):
    if i % 2:
      goes_on = parts[i + 1][:1].isalnum()  # as in `Estimate`s
      parts[i] = f"``{part.strip('`')}``" + ("\\ " if goes_on else "")
    else:
      words = SPECIAL.sub(r"\\\1", part)
      parts[i] = EQUATION.sub(r"Equation :eq:`\1`", words)
  return "".join(parts)


def to_rst(lines):
  """The lines of a docstring, as Sphinx wants them."""
  out, base, section, literal = [], 0, None, None
  for i, line in enumerate(lines):
    indent, empty = indent_of(line), not line.strip()
    if empty:
      out.append("")
      continue
    if section is not None and indent <= section:
      section = None
    if literal is not None and indent < literal:
      literal = None
    if SECTION.match(line):
      section = indent
      out.append(line)
      continue
    after_gap = i and not lines[i - 1].strip()
    inside = base if section is None else section + 4
    if literal is None and after_gap and indent > inside + 1:
      literal = indent
      margin = " " * (base if section is None else section + 2)
      out += [f"{margin}.. code-block:: none", ""]
    if literal is None and section is None:
      base = indent
    texts = [line]
    if section is not None and literal is None and indent == section + 2:
      texts = [
        f"{' ' * (indent if i else 0)}{t}"
        for i, t in enumerate(NEXT.split(line))
      ]
    out += texts if literal is not None else map(escaped, texts)
  return out


def process(app, what, name, obj, options, lines):
  lines[:] = to_rst(lines)


def setup(app):
  app.connect("autodoc-process-docstring", process, priority=100)
  return {"parallel_read_safe": True}
