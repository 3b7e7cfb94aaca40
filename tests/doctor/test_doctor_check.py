"""The whole check: command line, report, page, quarantine; indexes, specifications and stores."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_files import FACE, FRAMES, POINTS, clip, npy, picture

from facejax import cli, config_io
from facejax.data.pipeline import row_format
from facejax.doctor import check, page, stored
from facejax.doctor.findings import KINDS
from facejax.doctor.stored import open_subjects
from facejax.records import build, spec
from facejax.records.raw import RawSample
from facejax.records.store import RecordsSource
from facejax.types import Turn

DEMO = str(Path(__file__).parents[2] / "configs" / "demo.py")
CONFIG = config_io.load(DEMO, ["data.row_length=704", "data.videos_per_row=1"])


def write(folder: Path, name: str, records: list) -> Path:
  path = folder / name
  path.write_text(json.dumps(records))
  return path


def asked(question: str, answer: str = "Nobody you know.") -> list[dict]:
  return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.fixture
def folder(tmp_path) -> Path:
  """Eight samples: 0, 4, 5, 7 are good, and 7 is held out; 3 has the medium of 7, 5 a script."""
  (tmp_path / "a.png").write_bytes(picture(FACE.image))
  (tmp_path / "a.npy").write_bytes(npy(POINTS))
  (tmp_path / "b.png").write_bytes(picture(FRAMES[1]))
  (tmp_path / "cut.png").write_bytes(picture(FRAMES[2])[:300])
  (tmp_path / "c.mp4").write_bytes(clip(FRAMES))
  (tmp_path / "again.webp").write_bytes(picture(FRAMES[1], "WEBP", lossless=True))
  records = [
    {"image": "a.png", "landmarks_2d": "a.npy", "conversations": asked("<image> Who?")},
    {"image": "cut.png", "conversations": asked("<image> Who?", "")},
    {"image": "gone.png", "conversations": asked("<image> Who?")},
    {"image": "again.webp", "conversations": asked("<image> Who is it?")},
    {"video": "c.mp4", "conversations": asked("<video> What?")},
    {"conversations": asked("And <script>alert(1)</script>\x00?")},
    7,
  ]
  write(tmp_path, "train.json", records)
  held_out = {"image": "b.png", "conversations": asked("<image> Well?")}
  write(tmp_path, "test.json", [held_out])
  return tmp_path


def run(*arguments: object) -> int:
  flags = ["--config", DEMO, "--config.data.row_length=704", "--config.data.videos_per_row=1"]
  return cli.main(["data", "check", *map(str, arguments), *flags, "--workers=1"])


def test_a_check_of_two_indexes(folder, capsys):
  """Kills: findings in the workers' order, the wrong split quarantined, a lost total."""
  assert run(folder / "train.json", folder / "test.json") == 1
  out = folder / "train_check"
  report = json.loads((out / "report.json").read_text())
  assert [(f["sample"], f["kind"]) for f in report["findings"]] == [
    ("train.json:1", "empty_answer"),
    ("train.json:1", "no_supervision"),
    ("train.json:1", "truncated"),
    ("train.json:2", "missing_file"),
    ("train.json:3", "split_leak"),
    ("train.json:5", "control_characters"),
    ("train.json:6", "not_an_object"),
  ]
  lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
  assert [(line["id"], line["kind"]) for line in lines] == [
    ("train.json:1", "empty_answer"),
    ("train.json:2", "missing_file"),
    ("train.json:3", "split_leak"),
    ("train.json:6", "not_an_object"),
  ]
  assert (
    set(lines[0]) == {"id", "kind", "reason"} and "turn 1: the answer is ''" in lines[0]["reason"]
  )
  totals = report["totals"]
  assert (totals["samples"], totals["images"], totals["videos"]) == (8, 4, 1)
  sizes = [(folder / f"{name}").stat().st_size for name in ("a.png", "a.npy", "b.png", "cut.png")]
  sizes += [(folder / f"{name}").stat().st_size for name in ("c.mp4", "again.webp")]
  assert totals["bytes"] == sum(sizes) and totals["video_seconds"] == pytest.approx(1, abs=0.11)
  assert report["splits"] == {"train": 7, "test": 1} and report["quarantined"] == 4
  assert sum(report["lengths"]["samples"]) == 6  # those that can be laid out
  form = row_format(CONFIG.model, CONFIG.data)
  asked_ = "And <script>alert(1)</script>\x00?"
  text = form.text("x", (Turn("human", asked_), Turn("gpt", "Nobody you know.")), [])
  assert report["lengths"]["edges"][0] == len(text)
  assert report["kinds"]["split_leak"] == {
    "severity": "error",
    "findings": 1,
    "about": KINDS["split_leak"].about,
  }
  assert "8 samples, 6 errors, 1 warnings, 4 in quarantine" in capsys.readouterr().out


def test_the_page_holds_all_and_runs_nothing(folder):
  """Kills: a text that is not escaped, pictures that lie elsewhere, a control character."""
  sources = [folder / "train.json", folder / "test.json"]
  check.check(sources, CONFIG, folder / "out", check.Settings(2, progress=False))
  text = (folder / "out" / "report.html").read_text()
  assert "<script" not in text and "\x00" not in text and "http" not in text
  assert text.count("data:image/jpeg;base64,") == 1  # of the samples with findings, one decodes
  assert 'href="#truncated"' in text and 'id="truncated"' in text and "<svg" in text
  evil = {"sample": "<b>", "kind": "truncated", "message": "\u202e<img src=x>", "severity": "error"}
  row = page._examples("truncated", [evil] * 9, {"<b>": "AAAA"})
  assert "<b>" not in row and "<img src=x>" not in row and "\u202e" not in row
  assert row.count("base64,AAAA") == 6 and "and 3 more" in row


def test_workers_change_nothing(folder):
  """Kills: an order, a copy or a total that depends on who answered first."""
  found = []
  for workers in (1, 3):
    settings = check.Settings(workers, progress=False)
    report = check.check([folder / "train.json"], CONFIG, folder / "out", settings)
    assert report.pop("seconds") and report.pop("cpu_seconds")
    found.append((report, (folder / "out" / "quarantine.jsonl").read_text()))
  assert found[0] == found[1]


def test_exit_status(folder, capsys):
  """Kills: warnings that fail a build; an error that passes; a traceback for a wrong path."""
  clean = write(folder, "clean.json", [{"conversations": asked("And?")}])
  assert run(clean) == 0
  assert "Nothing was found wrong" in (folder / "clean_check" / "report.html").read_text()
  warned = write(folder, "warned.json", [{"conversations": asked("And?", "I cannot say.")}])
  assert run(warned) == 0 and run(warned, "--severity=refusal_answer=error") == 1
  assert run(folder / "gone.json") == 2
  assert "gone.json, looked for in" in capsys.readouterr().err
  assert run(warned, "--severity=refusal=error") == 2
  assert run(warned, "--timeout=0") == 2
  assert "--timeout=0: expected 0 or more processes" in capsys.readouterr().err


def test_an_earlier_report_stays_until_the_new_one_is_there(folder, monkeypatch):
  """Kills: files that are opened for writing before there is something to write."""
  index = write(folder, "clean.json", [{"conversations": asked("And?")}])
  out = folder / "out"
  check.check([index], CONFIG, out, check.Settings(1, progress=False))
  before = {path.name: path.read_text() for path in out.iterdir()}
  monkeypatch.setattr(check, "page", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    check.check([folder / "train.json"], CONFIG, out, check.Settings(1, progress=False))
  assert {p.name: p.read_text() for p in out.iterdir() if p.suffix != ".jsonl"} == {
    name: text for name, text in before.items() if not name.endswith(".jsonl")
  }


def specification(folder: Path) -> Path:
  records = [
    {"image": "a.png", "landmarks_2d": "a.npy", "conversations": asked("<image> Who?")},
    {"image": "b.png", "conversations": asked("<image> Who?", "\u200b")},
    {"image": "b.png", "conversations": asked("<image> How old?"), "age": -4},
  ]
  write(folder, "train.json", records)
  source = {"name": "mini", "layout": "llava", "licence": "ours", "index": ["train.json"]}
  path = folder / "spec.json"
  path.write_text(json.dumps({"sources": [source]}))
  return path


def test_training_honours_the_quarantine_of_a_store(folder):
  """Kills: a list in the wrong place, ids that the store does not have, a foreign line deleted."""
  (source,) = spec.load(specification(folder))
  build.build(source, folder / "out")
  form = row_format(CONFIG.model, CONFIG.data)
  from facejax.records import count

  count.count(folder / "out" / "mini", form, 1)
  store = folder / "out" / "mini"
  assert len(RecordsSource(store, form)) == 3
  by_hand = {"id": "train.json:0", "kind": "by_hand", "reason": "no consent"}
  (store / "quarantine.jsonl").write_text(json.dumps(by_hand) + "\n")
  for _ in range(2):
    report = check.check([folder / "out"], CONFIG, folder / "o", check.Settings(1, progress=False))
  kept = [json.loads(line) for line in (store / "quarantine.jsonl").read_text().splitlines()]
  assert [(line["id"], line["kind"]) for line in kept] == [
    ("train.json:0", "by_hand"),
    ("train.json:1", "empty_answer"),
    ("train.json:2", "label_range"),
  ]
  assert not (folder / "o" / "quarantine.jsonl").exists() and report["sources"][0]["name"] == "mini"
  source_ = RecordsSource(store, form)
  assert len(source_) == 0 and len(source_.refusals) == 3


def test_a_specification_finds_what_its_index_does(folder):
  """Kills: a specification whose samples have other names than those that are built."""
  path = specification(folder)
  settings = check.Settings(1, progress=False)
  reports = [
    check.check([p], CONFIG, folder / "o", settings) for p in (path, folder / "train.json")
  ]
  assert reports[0]["findings"] == reports[1]["findings"] and len(reports[0]["findings"]) == 3


class Refusing:
  """A layout of one good sample and two that cannot be read."""

  def __len__(self):
    return 3

  def id(self, index):
    return f"r{index}"

  def __getitem__(self, index):
    if index:
      reason = "a.png: no such file - check" if index == 1 else "row 3 has 2 columns"
      raise ValueError(f"sample 'r{index}': {reason}")
    turns = (Turn("human", "And?"), Turn("gpt", "So."))
    return RawSample("r0", turns, labels={"split": "val", "age": 7})


def test_what_a_layout_refuses():
  """Kills: a refusal that ends the check; the split among the labels."""
  reader = stored.LayoutReader(Refusing, "train")
  cases = [reader.read(i, b"") for i in range(3)]
  assert [[note.kind for note in case.notes] for case in cases] == [
    [],
    ["missing_file"],
    ["unreadable_sample"],
  ]
  assert cases[2].notes[0].message == "row 3 has 2 columns" and cases[1].own_id == "r1"
  assert cases[0].split == "val" and dict(cases[0].labels) == {"age": 7}
  assert not np.any([case.readable for case in cases[1:]]) and cases[0].readable


def test_what_is_no_source(tmp_path):
  """Kills: an empty folder that is clean."""
  with pytest.raises(ValueError, match=f"{tmp_path} holds no built source"):
    open_subjects([tmp_path], CONFIG)
  with pytest.raises(FileNotFoundError, match=r"no .*gone, looked for in"):
    open_subjects([tmp_path / "gone"], CONFIG)
