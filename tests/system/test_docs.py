"""What README and docs say can be done, can be done."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from facejax import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/*/README.md")])


def test_readme_python_runs(tmp_path):
  """Kills: an example that a rename left behind. Runs in another folder, as a user's would."""
  blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
  assert blocks
  for block in blocks:
    subprocess.run([sys.executable, "-c", block], check=True, cwd=tmp_path, timeout=300)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_exist(page):
  """Kills: a link to a page that moved, a command for a script that is not there."""
  text = page.read_text()
  targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if not t.startswith("http")]
  missing = [t for t in targets if not (page.parent / t).exists()]
  scripts = re.findall(r"python (experiments/\S+\.py)", text)
  missing += [s for s in scripts if not (ROOT / s).exists()]
  assert not missing


def test_readme_commands_parse():
  """Kills: a flag in the README that the command line does not have."""
  blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
  text = "\n".join(blocks).replace("\\\n", " ")
  commands = re.findall(r"^facejax (.+?)(?:  #.*)?$", text, re.MULTILINE)
  assert len(commands) >= 3
  parser = cli.make_parser()
  for command in commands:
    argv = [a.strip('"') for a in re.findall(r'"[^"]*"|\S+', command)]
    assert parser.parse_args([a for a in argv if not a.startswith("--config.")]).command == argv[0]


def test_make_targets_exist():
  """Kills: a make command in the docs without a target."""
  makefile = (ROOT / "Makefile").read_text()
  for page in PAGES:
    for target in re.findall(r"^make (\w+)", page.read_text(), re.MULTILINE):
      assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)
