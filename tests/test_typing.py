"""What a type checker and an editor see is what there is."""

import ast
import subprocess
import sys

import pytest

import diffflow_jax as dfj
from tests import commands

STUB = commands.ROOT / "diffflow_jax" / "__init__.pyi"


def test_the_stub_names_what_the_package_has_and_where_it_is():
  stub = {
    alias.asname: f"{node.module}.{alias.name}"
    for node in ast.parse(STUB.read_text()).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  }
  stub["train_state"] = stub.pop("_create")  # the two of other names
  stub["config"] = stub.pop("_load_config")
  here = {}
  for name, home in dfj._MODULES.items():
    here[name] = f"diffflow_jax.{home}"
  for name, home in dfj._FUNCTIONS.items():
    module, inner = (home, name) if isinstance(home, str) else home
    here[name] = f"diffflow_jax.{module}.{inner}"
  assert stub == here


@pytest.mark.slow
def test_mypy_accepts_a_users_file_and_finds_its_mistakes(tmp_path):
  def mypy(text):
    path = tmp_path / "user.py"
    path.write_text(text)
    done = subprocess.run(
      [sys.executable, "-m", "mypy", "--ignore-missing-imports"]
      + ["--follow-imports=silent"]
      + ["--cache-dir", str(tmp_path / "cache"), str(path)],
      capture_output=True,
      text=True,
      cwd=tmp_path,
      env={"MYPYPATH": str(commands.ROOT), "PATH": ""},
    )
    return done.stdout

  user = (commands.ROOT / "tests" / "typed" / "user.py").read_text()
  assert "Success" in mypy(user)
  wrong = mypy(user.replace("strength=3.0", "strength=3.0); dfj.nothing("))
  assert '"nothing"' in wrong and "1 error" in wrong
  assert "Unexpected keyword" in mypy(user.replace("null=0", "nul=0"))
