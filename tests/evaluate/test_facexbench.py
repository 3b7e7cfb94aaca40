"""FaceXBench: its files, prompts, extraction and averages."""

import itertools
import json
import re

import facexbench_folder
import numpy as np
import pytest

from facejax.evaluate import published
from facejax.evaluate.benchmarks import facexbench, facexbench_answers, open_benchmark
from facejax.evaluate.protocol import missing
from facejax.evaluate.results import summarise

OPTIONS = ("male", "female", "Both", "None of the above")

# Answers and letters of the original code, odd cases included.
ORACLE = [
  ("A", "A"),
  ("(A)", "A"),
  ("(B) female", "B"),
  ("b", None),
  ("Option C", "C"),
  ("The answer is D", "D"),
  ("A person is shown, so B", "A"),
  ("I think B", "B"),
  ("female", "A"),
  ("Both", "C"),
  ("none of the above", None),
  ("**C**", "C"),
  ("Image A shows B", "A"),
  ("", None),
  ("E", None),
]


@pytest.mark.parametrize(("answer", "letter"), ORACLE)
def test_official_extraction_is_the_original_one(answer, letter):
  """Kills: letters of either case, whole-word options, an article that is no letter."""
  assert facexbench_answers.official(answer, OPTIONS) == letter


def by_hand(answer: str, options) -> str | None:
  """The six patterns, written out character by character from their description."""
  text, valid = answer.strip(), [chr(65 + i) for i in range(len(options))]
  word = lambda c: c.isalnum() or c == "_"
  edge = lambda i: (i > 0 and word(text[i - 1])) != (i < len(text) and word(text[i]))
  latin = lambda i: 0 <= i < len(text) and text[i].isascii() and text[i].isalpha()

  def bare(i):  # an edge, perhaps a bracket, a letter, perhaps a bracket, an edge
    if not edge(i):
      return None
    for opening in (1, 0) if text[i : i + 1] == "(" else (0,):
      j = i + opening
      if latin(j):
        if text[j + 1 : j + 2] == ")" and edge(j + 2):
          return text[j], j + 2
        if edge(j + 1):
          return text[j], j + 1
    return None

  def option(i):  # the word Option, blanks, a letter, an edge
    if not edge(i) or text[i : i + 6] != "Option":
      return None
    j = i + 6
    while j < len(text) and text[j].isspace():
      j += 1
    return (text[j], j + 1) if j > i + 6 and latin(j) and edge(j + 1) else None

  def marked(mark):  # an edge, a letter, a mark
    return lambda i: (
      (text[i], i + 2) if edge(i) and latin(i) and text[i + 1 : i + 2] == mark else None
    )

  def dashed(i):  # an edge, a letter, blanks, a dash
    j = i + 1
    while j < len(text) and text[j].isspace():
      j += 1
    good = edge(i) and latin(i) and j > i + 1 and text[j : j + 1] == "-"
    return (text[i], j + 1) if good else None

  def bracketed(i):  # an edge, a letter in brackets
    good = edge(i) and text[i : i + 1] == "(" and latin(i + 1) and text[i + 2 : i + 3] == ")"
    return (text[i + 1], i + 3) if good else None

  kinds = (bare, option, marked("."), marked(":"), dashed, bracketed)
  for kind in kinds:
    found = kind(0)
    if found and found[0] in valid:
      return found[0]
  for kind in kinds:
    i = 0
    while i <= len(text):
      found = kind(i)
      if found and found[0] in valid:
        return found[0]
      i = found[1] if found else i + 1
  for letter, choice in zip(valid, options, strict=True):
    if str(choice).strip() == text or str(choice).strip() in text:
      return letter
  return None


def generated(count: int) -> list[tuple[str, tuple]]:
  """Answers put together of what models say, and their options."""
  rng = np.random.default_rng(7)
  pieces = (
    *(
      "A",
      "B",
      "C",
      "D",
      "E",
      "a",
      "b",
      "(A)",
      "(b)",
      "(D)",
      "B.",
      "c.",
      "C:",
      "d:",
      "A -",
      "B  -",
    ),
    *(
      "Option B",
      "Option  c",
      "option A",
      "Option\nD",
      "xA",
      "A1",
      "_B",
      "é",
      "ÄB",
      "(C",
      "D)",
      "((A))",
    ),
    *(
      "I think",
      "The answer is",
      "A person",
      "female",
      "male",
      "Both",
      "none",
      "22 to 26",
      "Image 1",
    ),
    *("\n", "**", "-", ",", ".", "it's", "API_1", "x(B)", "C.D", "B:A"),
  )
  choices = (OPTIONS, ("1", "2", "0", "3"), ("Image 1", "Images 1 and 3", "Both"), (22, 24, 26, 30))
  made = []
  for i in range(count):
    words = rng.choice(len(pieces), rng.integers(1, 6))
    glue = ("", " ", " ")[int(rng.integers(3))]
    made.append((glue.join(pieces[w] for w in words), choices[i % len(choices)]))
  return made


def test_official_extraction_agrees_with_the_patterns_by_hand():
  """Kills: another order of patterns, search where the original matches, a pattern mistyped."""
  cases = generated(200)
  found = [facexbench_answers.official(answer, options) for answer, options in cases]
  assert found == [by_hand(answer, options) for answer, options in cases]
  assert {None, "A", "B", "C", "D"} == set(found)
  assert found.count(None) < 120


@pytest.mark.parametrize(
  ("answer", "letter"),
  [
    ("b", "B"),
    ("**C**", "C"),
    ("(B) female", "B"),
    ("B. female", "B"),
    ("female", "B"),
    ("none of the above.", "D"),
    ("The correct answer is (B).", "B"),
    ("**Answer:** D", "D"),
    ("A person is shown, so Both", None),
    ("Image A shows B", None),
    ("Option B or C", None),
    ("The answer is A man", None),
    ("E", None),
    ("", None),
  ],
)
def test_strict_extraction(answer, letter):
  """Kills: an article or a part of a word read as an answer, one of two letters chosen."""
  assert facexbench_answers.strict(answer, OPTIONS) == letter


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
  """Both released numbers of questions: {5000: folder, 4998: folder}."""
  root = tmp_path_factory.mktemp("facexbench")
  return {4700 + n: facexbench_folder.make(root / str(n), deepfakes=n) for n in (300, 298)}


def test_counts_are_the_released_ones(complete):
  """Kills: items dropped or doubled, 4,998 refused, letters by place instead of by name."""
  for count, folder in complete.items():
    benchmark = open_benchmark("facexbench", folder, {})
    assert len(benchmark.items) == count and not benchmark.left_out
    assert len({item.id for item in benchmark.items}) == count
    numbers = [n for n in benchmark.notes if "the int 24" in n.reason]
    assert len(numbers) == 300  # crowd counting
  item = next(i for i in benchmark.items if i.id == "celebdf_multiple_mcq/2")
  assert item.truth == "C" and len(item.media) == 4 and item.prompt.startswith("<image>\n" * 4)
  assert item.groups == {
    "category": "Face Authentication",
    "sub-task": "deepfakes",
    "dataset": "celebdf",
    "images": "multiple",
    "pictures": "4",
  }


def test_prompt_is_that_of_the_release(tmp_path):
  """Kills: options before the instruction, the description of the task in zero-shot prompts."""
  stem = "utkface_single_mcq_gender_test"
  data = facexbench_folder.write(tmp_path, stem, "bias_fairness", 1)
  question = data["questions"]["1"]
  plain = (
    "Which gender is it, number 1?\n"
    "Please answer the question and provide only the correct option letter, e.g., A, B, C, D.\n"
    "(A) male\n(B) female\n(C) Both\n(D) None of the above\n"
  )
  assert facexbench.prompt(data, question, in_context=False) == plain
  described = facexbench.prompt(data, question, in_context=True)
  assert described == "You have to perform the task of gender.\n" + plain
  tools = facexbench_folder.write(tmp_path, "tools_retrieval", "tools_use", 1)
  text = facexbench.prompt(tools, tools["questions"]["1"], in_context=True)
  assert text.startswith("Ignore the image. You have the tools api_1 to api_13.\nYou have to")
  del data["postpend_text"]
  assert facexbench.prompt(data, question, in_context=False).count("\n") == 5
  options = {"setting": "in_context", "partial": "true", "extraction": "strict"}
  benchmark = open_benchmark("facexbench", tmp_path, options)
  assert benchmark.items[-1].prompt == f"<image>\n{described}"
  assert benchmark.parser == "facexbench/strict/1" and benchmark.settings["setting"] == "in_context"
  assert benchmark.parse("female", benchmark.items[-1]) == "B"


def told(benchmark, right: dict[str, int]) -> list[dict]:
  """Records of which so many of each sub-task are right; the others say another letter."""
  left, records = dict(right), []
  for item in benchmark.items:
    task = item.groups["sub-task"]
    letter = item.truth
    if left[task] == 0:
      letter = "ABCD"[("ABCD".index(item.truth) + 1) % 4]
    else:
      left[task] -= 1
    answer = f"({letter})"
    records.append(
      {
        "id": item.id,
        "answer": answer,
        "stopped": True,
        "parsed": benchmark.parse(answer, item),
        "truth": item.truth,
        "groups": item.groups,
      }
    )
  assert not any(left.values())
  return records


@pytest.mark.parametrize("model", ["FaceLLM-1B", "FaceLLM-8B", "FaceLLM-38B"])
def test_published_counts_give_the_published_figures(model, complete):
  """Kills: a mean of means, a sub-task in another category, figures of 5,000 for 4,998."""
  tasks = published.sub_tasks()
  benchmark = open_benchmark("facexbench", complete[4998], {})
  records = told(benchmark, {name: task["correct"][model] for name, task in tasks.items()})
  results = summarise(benchmark, records[::-1], resamples=20)
  row = next(r for r in published.rows("facexbench") if r.model == model)
  assert row.questions == 4998 == results["n"]
  assert round(results["scores"]["accuracy"]["value"], 2) == row.values["accuracy"]
  names = set(row.values) - {"accuracy"}
  assert names == set(facexbench.CATEGORIES.values()) == set(results["groups"]["category"])
  for name in names:
    assert abs(results["groups"]["category"][name]["accuracy"]["value"] - row.values[name]) < 0.0051
  for name, task in tasks.items():
    found = results["groups"]["sub-task"][name]
    assert found["n"] == task["questions"]
    assert abs(found["accuracy"]["value"] - task["percent"][model]) < 0.051
  groups = results["groups"]["images"]
  assert sum(g["n"] for g in groups.values()) == 4998 and set(groups) == {
    "single",
    "multiple",
    "zero",
  }
  assert results["parse_failures"]["count"] == 0 and not results["fairness"]


def test_published_rows_agree_with_themselves():
  """Kills: a figure mistyped: each overall is the mean of its categories by their questions."""
  sizes = {"Bias & Fairness": 1500, "Face Recognition": 800, "Face Authentication": 700}
  sizes |= {"Face Analysis": 800, "Face Localization": 1100, "Face Tools Use": 100}
  rows = [r for r in published.rows("facexbench") if len(r.values) == 7]
  assert len(rows) == 33
  for row in rows:
    own = sizes | {"Face Authentication": 698 if row.questions == 4998 else 700}
    right = sum(row.values[name] * n for name, n in own.items())
    assert abs(right / sum(own.values()) - row.values["accuracy"]) < 0.012, row.model
    assert row.source and row.tag


def test_perfect_and_shuffled_letters(complete):
  """Kills: a score other than 100 where all is right, intervals that do not hold chance."""
  benchmark = open_benchmark("facexbench", complete[5000], {})
  full = {name: n for name, (_, n) in facexbench.SUB_TASKS.items()}
  perfect = told(benchmark, full)
  scores = summarise(benchmark, perfect, resamples=20)["scores"]["accuracy"]
  assert scores == {"value": 100, "low": 100, "high": 100, "n": 5000}
  rng = np.random.default_rng(0)
  letters = rng.permutation([r["parsed"] for r in perfect])
  shuffled = [{**r, "parsed": p} for r, p in zip(perfect, letters.tolist(), strict=True)]
  scores = summarise(benchmark, shuffled, resamples=200)["scores"]["accuracy"]
  assert scores["low"] < 25 < scores["high"] and scores["high"] - scores["low"] < 3


def test_missing_questions_are_refused(tmp_path, complete):
  """Kills: another denominator in silence, a message without the file or the sub-task."""
  folder = tmp_path / "benchmark"
  folder.mkdir()
  for path in complete[5000].glob("*.json"):
    if path.stem != "lfw_multiple_mcq":
      (folder / path.name).write_bytes(path.read_bytes())
  path = folder / "tools_retrieval.json"
  data = json.loads(path.read_text())
  data["questions"]["3"]["correct_answer_option"] = "E"
  path.write_text(json.dumps(data))
  with pytest.raises(ValueError) as refused:
    open_benchmark("facexbench", folder, {})
  words = str(refused.value)
  assert "expected 5,000, or 4,998" in words and "missing files: lfw_multiple_mcq" in words
  assert re.search(r"hr_fr: 3\d\d of 400", words) and "tools_retrieval: 99 of 100" in words
  assert "tools_retrieval/3: correct_answer_option is 'E'" in words
  benchmark = open_benchmark("facexbench", folder, {"partial": "true"})
  assert [r.id for r in benchmark.left_out] == ["tools_retrieval/3"]


def test_missing_pictures_are_all_listed(tmp_path):
  """Kills: the first missing picture alone, a path out of the folder that is read."""
  data = facexbench_folder.write(tmp_path, "wmca_multiple_mcq", "fas_deepfakes", 3)
  facexbench_folder.draw(tmp_path)
  benchmark = open_benchmark("facexbench", tmp_path, {"partial": "true"})
  assert not missing(benchmark)
  (tmp_path / data["questions"]["1"]["image_paths"][1]).unlink()
  (tmp_path / data["questions"]["3"]["image_paths"][0]).write_bytes(b"")
  data["questions"]["2"]["image_paths"][0] = "../outside.png"
  (tmp_path / "wmca_multiple_mcq.json").write_text(json.dumps(data))
  found = missing(open_benchmark("facexbench", tmp_path, {"partial": "true"}))
  assert [(r.id, r.reason.split(": ")[-1].split(" - ")[0]) for r in found] == [
    ("wmca_multiple_mcq/1", "no such file"),
    ("wmca_multiple_mcq/2", f"path '../outside.png' is not inside {tmp_path}"),
    ("wmca_multiple_mcq/3", "empty file"),
  ]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"category": "bias"}, "category 'bias' - expected one of bias_fairness"),
    ({"sub-category": "ages"}, "sub-category 'ages' - expected one of age"),
    ({"questions": []}, "no questions by number"),
  ],
)
def test_other_files_are_refused(changes, words, tmp_path):
  """Kills: a file of another benchmark counted with this one."""
  facexbench_folder.write(tmp_path, "wmca_single_mcq", "fas_deepfakes", 1, changes)
  with pytest.raises(ValueError, match=re.escape(words)):
    open_benchmark("facexbench", tmp_path, {"partial": "true"})
  (tmp_path / "wmca_single_mcq.json").write_text("{")
  with pytest.raises(ValueError, match="is no JSON"):
    open_benchmark("facexbench", tmp_path, {"partial": "true"})


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"question_text": 5}, "question_text is 5"),
    ({"options": ["one"]}, r"options are \['one'\]"),
    ({"image_paths": "a.png"}, "image_paths are 'a.png'"),
    ({"correct_answer_option": None}, "correct_answer_option is None - expected one of A, B, C, D"),
  ],
)
def test_unusable_questions_are_listed(change, words, tmp_path):
  """Kills: a crash behind hours of answers, or None that equals None and counts as right."""
  data = facexbench_folder.write(tmp_path, "biwi_single_mcq", "face_localization", 2)
  data["questions"]["1"] |= change
  (tmp_path / "biwi_single_mcq.json").write_text(json.dumps(data))
  benchmark = open_benchmark("facexbench", tmp_path, {"partial": "true"})
  assert [item.id for item in benchmark.items] == ["biwi_single_mcq/2"]
  (refused,) = benchmark.left_out
  assert refused.id == "biwi_single_mcq/1" and re.search(words, refused.reason)


def test_odd_options_count_as_they_are(tmp_path):
  """Kills: integer options that crash the parser, a question with a forged placeholder asked."""
  data = facexbench_folder.write(tmp_path, "shanghaitech_single_mcq", "face_localization", 2)
  data["questions"]["1"]["options"] = [22, 24, 26]
  data["questions"]["2"]["question_text"] = "What is <image>?"
  (tmp_path / "shanghaitech_single_mcq.json").write_text(json.dumps(data))
  benchmark = open_benchmark("facexbench", tmp_path, {"partial": "true"})
  first, second = benchmark.items
  assert first.choices == ("22", "24", "26") and benchmark.parse("24", first) == "B"
  assert "(B) 24\n" in first.prompt and "<image>, which stands for a medium" in second.error
  reasons = [n.reason for n in benchmark.notes if n.id.endswith("/1")]
  assert len(reasons) == 3 and "3 options, not four" in reasons


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"seting": "in_context"}, "'seting', expected one of setting.*did you mean 'setting'"),
    ({"setting": "few_shot"}, "FaceXBench.setting is 'few_shot'"),
    ({"extraction": "lax"}, "FaceXBench.extraction is 'lax'"),
    ({"partial": "yes"}, "is 'yes', expected one of true, false"),
  ],
)
def test_wrong_options_are_named(options, words, tmp_path):
  """Kills: an option that nobody reads."""
  with pytest.raises(ValueError, match=words):
    open_benchmark("facexbench", tmp_path, options)


def test_no_files_are_named(tmp_path):
  """Kills: an empty benchmark that scores nothing."""
  with pytest.raises(FileNotFoundError, match=r"no .json files in .*expected the 48"):
    open_benchmark("facexbench", tmp_path, {})
  with pytest.raises(ValueError, match=r"--suite is 'facexbenchs'.*did you mean 'facexbench'"):
    open_benchmark("facexbenchs", tmp_path, {})


def test_files_are_named_once():
  """Kills: a file of the release that is not looked for."""
  assert len(set(facexbench.FILES)) == len(facexbench.FILES) == 48
  totals = itertools.accumulate(n for _, n in facexbench.SUB_TASKS.values())
  assert list(totals)[-1] == 5000
