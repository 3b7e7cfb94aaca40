"""Specifications and the commands that read them: what is accepted, and every message."""

import json
import re

import pytest
from record_folders import llava_folder

from facejax import cli
from facejax.records import spec
from facejax.records.layouts.raf_db import RafDb
from facejax.records.store import RecordsSource, Store

ENTRY = {"name": "raf_db", "layout": "raf_db", "licence": "research only", "folder": "basic"}


def _load(tmp_path, *entries, **top):
  path = tmp_path / "spec.json"
  path.write_text(json.dumps({"sources": list(entries)} | top))
  return spec.load(path)


def test_a_specification_opens_its_layouts(tmp_path):
  """Kills: paths relative to the working folder, settings that do not arrive, a fixed part."""
  indexes = ["a.json", str(tmp_path / "b.json")]
  llava = {"name": "x-1", "layout": "llava", "licence": "", "index": indexes}
  one, two = _load(tmp_path, ENTRY | {"split": "test", "part": 7}, llava)
  assert one.options == RafDb(str(tmp_path / "basic"), "test") and one.part == 7
  assert two.options.index == (str(tmp_path / "a.json"), str(tmp_path / "b.json"))
  assert (two.options.image_folder, two.part, two.licence) == ("", 4096, "")


def test_a_specification_in_python(tmp_path):
  """Kills: a .py that is read as JSON, or of which the paths are relative to elsewhere."""
  path = tmp_path / "mine.py"
  path.write_text(
    f"def get_spec():\n  return {{'sources': [dict({ENTRY!r}, seed=n) for n in [4]]}}\n"
  )
  (source,) = spec.load(path)
  assert source.options == RafDb(str(tmp_path / "basic"), seed=4)
  path.write_text("sources = []")
  with pytest.raises(ValueError, match=r"mine.py: a specification in Python defines get_spec\(\)"):
    spec.load(path)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"layout": "raf-db"}, r"sources\[0\].layout is 'raf-db', .*did you mean 'raf_db'"),
    ({"spilt": "test"}, r"sources\[0\]: no field 'spilt' in RafDb; did you mean 'split'"),
    ({"split": 3}, r"sources\[0\].split: expected str, got 3"),
    ({"licence": None}, r"sources\[0\].licence: expected str, got None"),
    ({"part": "7"}, r"sources\[0\].part: expected int, got '7'"),
    ({"part": 0}, r"SourceSpec.part=0: expected at least 1"),
    ({"name": "a/b"}, r"source name 'a/b' - expected letters, digits"),
    ({"name": "../a"}, r"source name '../a' - expected letters, digits"),
    ({"name": ".building"}, r"source name '.building' - expected letters, digits"),
  ],
)
def test_entries_that_cannot_work(tmp_path, change, message):
  """Kills: a misspelt setting that is ignored; a name that leaves OUT."""
  with pytest.raises(ValueError, match=message):
    _load(tmp_path, ENTRY | change)


def test_missing_fields_name_what_is_there(tmp_path):
  """Kills: a default licence; a hint that names nothing."""
  entry = {k: v for k, v in ENTRY.items() if k != "licence"} | {"license": "CC0"}
  with pytest.raises(ValueError, match=r"licence: expected str, got None; 'license' is no field"):
    _load(tmp_path, entry)
  entry = {k: v for k, v in ENTRY.items() if k != "folder"}
  with pytest.raises(ValueError, match=r"sources\[0\]: RafDb needs a field 'folder'"):
    _load(tmp_path, entry)


def test_specifications_that_are_none(tmp_path):
  """Kills: an empty build that looks like a success; two sources in one folder."""
  with pytest.raises(ValueError, match="2 sources are named 'raf_db' - rename them"):
    _load(tmp_path, ENTRY, ENTRY | {"split": "test"})
  with pytest.raises(ValueError, match="'sources' is empty"):
    _load(tmp_path)
  with pytest.raises(ValueError, match=r"sources\[1\] is 'x' - expected an object"):
    _load(tmp_path, ENTRY, "x")
  with pytest.raises(ValueError, match=r"no field 'licence' beside 'sources'"):
    _load(tmp_path, ENTRY, licence="CC0")
  path = tmp_path / "list.json"
  path.write_text("[1]")
  with pytest.raises(ValueError, match=r'expected {"sources": \[...\]}, got \[1\]'):
    spec.load(path)
  path.write_text("{")
  with pytest.raises(ValueError, match=r"list.json is no JSON"):
    spec.load(path)
  with pytest.raises(FileNotFoundError, match=r"no specification .*gone.json"):
    spec.load(tmp_path / "gone.json")


@pytest.fixture
def here(tmp_path, monkeypatch):
  """Two sources of the official layout."""
  llava_folder(tmp_path / "official")
  entry = {"layout": "llava", "licence": "CC0", "index": ["official/train.json"]}
  entries = [entry | {"name": name} for name in ("one", "two")]
  (tmp_path / "spec.json").write_text(json.dumps({"sources": entries}))
  config = str(cli.__file__).replace("src/facejax/cli.py", "configs/demo.py")
  monkeypatch.chdir(tmp_path)
  return config


def _run(capsys, *argv):
  code = cli.main(["data", *argv])
  said = capsys.readouterr()
  return code, said.out, said.err


def test_the_command_builds_counts_and_finds_it_done(here, tmp_path, capsys, form):
  """Kills: a source that is not built, or not counted; a second run that builds again."""
  code, out, _ = _run(capsys, "build", "spec.json", "out", "--only=two", f"--config={here}")
  assert code == 0
  built, counted = out.splitlines()
  assert re.fullmatch(r"out/two: 7 samples in [\d,]+ bytes, 0 refused", built)
  assert re.fullmatch(r"out/two: tokens-\w{8} counts \d+ text tokens, 0 samples refused", counted)
  assert len(RecordsSource(tmp_path / "out" / "two", form)) == 7
  assert not (tmp_path / "out" / "one").exists()
  code, out, _ = _run(capsys, "build", "spec.json", "out")
  assert code == 0 and out.splitlines()[1] == f"{built}, already built"
  assert Store("out/one").digest() == Store("out/two").digest()
  code, out, _ = _run(
    capsys, "count", "out/one", "out/two", f"--config={here}", "--config.data.template=vicuna_v1"
  )
  assert code == 0 and "out/two: tokens-" in out and out.splitlines()[1].endswith("to count")


@pytest.mark.parametrize(
  "argv, message",
  [
    (["spec.json", "out", "--only=on"], "--only is 'on', expected one of one, two; did you mean"),
    (["spec.json", "out", "--rebuild=three"], "--rebuild is 'three', expected one of one, two"),
    (["spec.json", "out", "--workers=0"], "--workers=0: expected at least 1"),
    (["spec.json", "out", "--max-refused=2"], "--max-refused=2.0: expected a share, 0 to 1"),
    (["spec.json", "out", "--beam", "--workers=2"], "--beam with --workers=2: Beam has workers"),
    (["spec.json", "out", "--config.data.seed=1"], "without --config: expected the config"),
    (["spec.json", "out", "--config=gone.py"], "config file gone.py does not exist"),
    (["gone.json", "out"], "no specification gone.json"),
  ],
)
def test_commands_that_cannot_work(here, capsys, argv, message):
  """Kills: a flag that is ignored, an error that is a traceback or comes behind the work."""
  code, out, err = _run(capsys, "build", *argv)
  assert (code, out) == (2, "") and message in err


def test_counting_what_is_no_source(here, capsys):
  """Kills: a folder that is made where none was."""
  code, _, err = _run(capsys, "count", "out/gone", f"--config={here}")
  assert code == 2 and "out/gone is no built source" in err
