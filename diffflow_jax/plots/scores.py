"""Figures of an evaluation: numbers against evaluations, and against guidance.

All take the content of evaluation.json.
"""

from diffflow_jax.plots.figures import subplots

STYLES = ("o-", "s--", "^:")
MOST_PANELS = 6  # numbers that are drawn against evaluations


def evaluation(result):
  """A Figure of all that was swept, or None where no sampler has a number.

  A panel for each number against evaluations, a line for each solver; and where
  there are several strengths of guidance, precision against recall, and the
  Fréchet distance against label agreement, or against the strength.
  """
  done = [one for one in result["samplers"] if one["numbers"]]
  if not done:
    return None
  draw = []
  strengths = sorted({one["settings"]["guidance"] for one in done})
  swept = len({one["evaluations"] for one in done}) > 1
  if swept or len(strengths) == 1:
    first = [o for o in done if o["settings"]["guidance"] == strengths[0]]
    for number in _drawn(first):
      floor = result["reference"]["floor"].get(number)
      draw.append(lambda ax, n=number, f=floor: against(ax, first, n, f))
  if len(strengths) > 1:
    frechet = _frechet(done)
    for x, y in (("recall", "precision"), ("label_agreement", frechet)):
      if x in done[0]["numbers"] and y in done[0]["numbers"]:
        draw.append(lambda ax, x=x, y=y: _way(ax, done, x, y))
    lacks = {"recall", "label_agreement"} - set(done[0]["numbers"])
    if lacks:
      for number in [frechet] if frechet else _drawn(done)[:1]:
        draw.append(lambda ax, n=number: _of_strength(ax, done, n))
  columns = min(3, len(draw))
  rows = -(-len(draw) // columns)
  figure, axes = subplots(
    rows, columns, figsize=(4.2 * columns, 3.4 * rows + 0.6), squeeze=False
  )
  for ax, one in zip(axes.ravel(), draw, strict=False):
    one(ax)
  for ax in axes.ravel()[len(draw) :]:
    ax.set_axis_off()
  lines = dict(
    (label, line)
    for ax in axes.ravel()
    for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
  )
  figure.legend(
    lines.values(), lines.keys(), loc="outside lower center",
    ncols=min(5, len(lines)), fontsize=8, frameon=False,
  )  # fmt: skip
  return figure


def against(ax, done, number, floor=None):
  """A number against evaluations, a line for each solver, 95 % intervals.

  Args:
    done: samplers of a result; floor: of real data, dashed.
  """
  lines = _by_solver(done)
  for k, (label, several) in enumerate(lines.items()):
    several = sorted(several, key=lambda one: one["evaluations"])
    entries = [one["numbers"][number] for one in several]
    beside = 1.012 ** (k - (len(lines) - 1) / 2)  # bars that do not hide bars
    x = [one["evaluations"] * beside for one in several]
    _line(ax, x, entries, k, label)
  if floor is not None:
    ax.axhline(floor["value"], color="0.5", ls="--", lw=1, label="real data")
    if num := floor.get("num_samples"):
      ax.annotate(
        f"{num:,} real", (1.0, floor["value"]), (-2, 2), ha="right",
        xycoords=("axes fraction", "data"), textcoords="offset points",
        color="0.5", fontsize=7,
      )  # fmt: skip
  values = [
    one["numbers"][number]["value"]
    for one in done
    if one["numbers"][number]["value"] is not None
  ]
  spread = min(values) > 0 and max(values) / min(values) > 30
  if len({one["evaluations"] for one in done}) > 1:
    ax.set_xscale("log")
    ticks = sorted({round(one["evaluations"]) for one in done})
    ax.set_xticks(ticks, labels=map(str, ticks))
    ax.minorticks_off()
  if spread:
    ax.set_yscale("log")
  ax.set(xlabel="network evaluations", ylabel=_named(number, done))


def _way(ax, done, x, y):
  """One number against another, points joined in the order of guidance."""
  for k, (label, several) in enumerate(_by_sampler(done).items()):
    several = sorted(several, key=lambda one: one["settings"]["guidance"])
    place = [
      [one["numbers"][name]["value"] for one in several] for name in (x, y)
    ]
    ax.plot(*place, STYLES[k // 10 % 3], color=f"C{k % 10}", ms=4, label=label)
    for one, at in zip(several, zip(*place, strict=True), strict=True):
      text = f"{one['settings']['guidance']:g}"
      ax.annotate(
        text, at, fontsize=7, xytext=(4, 3), textcoords="offset points"
      )
  ax.set(xlabel=_named(x, done), ylabel=_named(y, done))
  ax.set_title("numbers: guidance", fontsize=9)


def _of_strength(ax, done, number):
  for k, (label, several) in enumerate(_by_sampler(done).items()):
    several = sorted(several, key=lambda one: one["settings"]["guidance"])
    entries = [one["numbers"][number] for one in several]
    x = [one["settings"]["guidance"] for one in several]
    _line(ax, x, entries, k, label)
  ax.set(xlabel="guidance", ylabel=_named(number, done))


def _line(ax, x, entries, k, label):
  value = [e["value"] for e in entries]
  half = [
    0.0 if e["low"] is None else (e["high"] - e["low"]) / 2 for e in entries
  ]
  ax.errorbar(
    x, value, half, fmt=STYLES[k // 10 % 3], color=f"C{k % 10}", ms=4, lw=1.2,
    elinewidth=0.8, capsize=2, label=label,
  )  # fmt: skip


def _by_solver(done):
  found = {}
  for one in done:
    found.setdefault(_solver(one), []).append(one)
  return found


def _by_sampler(done):
  found = {}
  for one in done:
    label = f"{_solver(one)}, {one['evaluations']:g}"
    found.setdefault(label, []).append(one)
  return found


def _solver(one):
  return one["settings"]["solver"]


def _frechet(done):
  names = [n for n in done[0]["numbers"] if n.startswith(("fid", "fd_"))]
  return names[0] if names else None


def _drawn(done):
  """Numbers that get a panel: those that papers print, the first few."""
  names = [n for n in done[0]["numbers"] if not n.endswith("_unbiased")]
  return names[:MOST_PANELS]


def _named(number, done):
  """Its name, with how many samples it is of."""
  num = done[0]["numbers"][number]["num_samples"]
  return f"{number.replace('_', ' ')} ({num:,} samples)"
