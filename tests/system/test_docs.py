"""What README and docs say can be done, can be done."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from facejax import cli, config_io

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


def commands(text: str) -> list[list[str]]:
  """The arguments of each line that calls facejax."""
  text = re.sub(r"\\\n\s*", " ", text)
  found = re.findall(r"^[ \t]*(?:\S*/)?facejax (.+?)(?:  +#.*)?$", text, re.MULTILINE)
  return [[a.strip('"') for a in re.findall(r'"[^"]*"|\S+', line)] for line in found]


def in_fences(page: Path) -> str:
  return "\n".join(re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL))


def in_docstring(config: Path) -> str:
  return ast.get_docstring(ast.parse(config.read_text())) or ""


SAID = [
  *(("README.md", argv) for argv in commands(in_fences(ROOT / "README.md"))),
  *(
    (c.name, argv)
    for c in sorted((ROOT / "configs").glob("*.py"))
    for argv in commands(in_docstring(c))
  ),
]


@pytest.mark.parametrize(("page", "argv"), SAID, ids=lambda x: x if isinstance(x, str) else x[0])
def test_commands_are_accepted(page, argv):
  """Kills: a flag, or the name of a setting, in the docs that the command line refuses."""
  del page
  settings = [a.removeprefix("--config.") for a in argv if a.startswith("--config.")]
  parsed = cli.make_parser().parse_args([a for a in argv if not a.startswith("--config.")])
  assert parsed.command == argv[0]
  if settings:
    config_io.load(ROOT / parsed.config, settings)


def test_commands_are_found():
  """Kills: a pattern that finds no command any more, and tests nothing."""
  pages = [page for page, _ in SAID]
  assert pages.count("README.md") >= 3 and {"demo.py", "face_llava_7b.py"} <= set(pages)
  assert any(a.startswith("--config.") for _, argv in SAID for a in argv)


def test_make_targets_exist():
  """Kills: a make command in the docs without a target."""
  makefile = (ROOT / "Makefile").read_text()
  for page in PAGES:
    for target in re.findall(r"^make (\w+)", page.read_text(), re.MULTILINE):
      assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)


def test_make_demo_overwrites_nothing():
  """Kills: a second `make demo` that deletes the run of the first."""
  recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
  (argv,) = commands(recipe[1])
  parsed = cli.make_parser().parse_args(argv)
  assert parsed.command == "demo" and parsed.resume and not parsed.overwrite
