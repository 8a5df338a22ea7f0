"""What lives elsewhere in the repository, made pages: tables and notebooks."""

import pathlib
import shutil

from diffflow_jax.explorer import page

INTRO = {
  "results": (
    "benchmarks/results", "Measured", "Each table says what command makes it.",
  ),
  "notebooks": (
    "colabs", "Notebooks", "Each opens in Colab and runs from top to bottom.",
  ),
}  # fmt: skip


def write(app):
  docs = pathlib.Path(app.srcdir)
  for name, (home, title, intro) in INTRO.items():
    folder = docs / name
    shutil.rmtree(folder, ignore_errors=True)  # of a page that is no more
    folder.mkdir()
    pages = []
    for path in sorted((docs.parent / home).iterdir()):
      if path.suffix in (".md", ".ipynb", ".png", ".svg"):
        shutil.copy2(path, folder / path.name)
      if path.suffix in (".md", ".ipynb"):
        pages.append(path.stem)
    toc = ["```{toctree}", ":maxdepth: 1", "", *pages, "```"]
    text = "\n".join([f"# {title}", "", intro, "", *toc, ""])
    (folder / "index.md").write_text(text)
  made = docs / "_static" / "explorer.html"
  if not made.exists():
    made.write_text(page.html(), encoding="utf-8")


def setup(app):
  app.connect("builder-inited", write, priority=400)
  return {"parallel_read_safe": True}
