"""The code blocks of the README's part on samplers run as they stand."""

import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]


def test_code_blocks_run(tmp_path, monkeypatch):
  text = (ROOT / "README_samplers.md").read_text()
  blocks = re.findall(r"```python\n(.*?)```", text, re.S)
  assert len(blocks) == 4
  monkeypatch.chdir(tmp_path)
  names = {}
  for block in blocks:
    exec(compile(block, "README_samplers.md", "exec"), names)
  assert np.isfinite(names["x"]).all() and names["x"].shape == (1000, 2)
