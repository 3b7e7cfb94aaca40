"""The benchmarks of expressions, action units, attributes, ages and deepfakes, and FairFace."""

import dataclasses

import numpy as np
import pytest
import released_folders

from facejax.evaluate import answers, published, synonyms
from facejax.evaluate.benchmarks import CLASSES, open_benchmark
from facejax.evaluate.protocol import missing
from facejax.evaluate.results import summarise
from facejax.faces.action_units import ACTION_UNITS
from facejax.records.layouts.celeba import NOUNS

MAIN = {"class": "accuracy", "units": "f1", "attributes": "mean_accuracy", "age": "age_mae"}


@pytest.fixture(params=released_folders.MAKERS)
def made(request, tmp_path):
  """An opened benchmark of the made-up folder."""
  name, options = released_folders.MAKERS[request.param](tmp_path)
  return open_benchmark(name, tmp_path, options)


def say(benchmark, truth, i: int) -> str:
  """An answer that states the truth, in words like a model's."""
  if benchmark.task == "units":
    said = [f"AU{u} ({ACTION_UNITS[u]})" if i % 2 else ACTION_UNITS[u] for u in truth]
    return f"The face shows {', '.join(said)}." if said else "No action units are active."
  if benchmark.task == "attributes":
    return describe(truth)
  if benchmark.task == "age":
    return f"{truth:.0f} years old is a reasonable estimate. The skin is that of 3 faces."
  if benchmark.name == "fairface_race":
    return f"The person looks {truth.replace('_', ' or ')}."
  if benchmark.name in ("fairface_age", "fairface_gender"):
    return truth.lower()
  return (f"{truth.capitalize()}: one sees it at once.", f"This is {truth}, not a doubt.")[i % 2]


def describe(truth) -> str:
  """A description with the words of the attributes' nouns."""
  parts = [
    f"There is {NOUNS[name]}." for name in truth if NOUNS[name] and name not in ("Male", "Young")
  ]
  parts += ["The face is attractive."] if "Attractive" in truth else []
  # A goatee is a beard: labels may say No_Beard beside it, a description cannot.
  parts += ["No beard."] if "No_Beard" in truth else ["A beard."]
  parts.append("The man" if "Male" in truth else "The woman")
  parts.append("is young." if "Young" in truth else "is elderly.")
  return " ".join(parts)


def records(benchmark, texts) -> list[dict]:
  return [
    {
      "id": item.id,
      "answer": text,
      "stopped": True,
      "parsed": benchmark.parse(text, item),
      "truth": item.truth,
      "groups": dict(item.groups),
    }
    for item, text in zip(benchmark.items, texts, strict=True)
  ]


def test_perfect_answers_score_perfectly(made):
  """Kills: labels of another row or class, another benchmark's parser, media elsewhere."""
  assert not missing(made) and not made.left_out
  texts = [say(made, item.truth, i) for i, item in enumerate(made.items)]
  told = records(made, texts)
  wrong = [(r["answer"], r["parsed"], r["truth"]) for r in told if r["parsed"] != r["truth"]]
  if made.name == "celeba":  # beards that the labels both affirm and deny
    wrong = [w for w in wrong if set(w[1]) ^ set(w[2]) != {"No_Beard"}]
  assert not wrong
  results = summarise(made, told, resamples=20)
  main = results["scores"][MAIN[made.task]]
  best = 0 if made.task == "age" else 100
  if made.name == "celeba":
    assert 97.5 < main["value"] <= 100 and results["each"]["accuracy"]["Bald"]["value"] == 100
  else:
    assert main == {"value": best, "low": best, "high": best, "n": len(made.items)}
  assert results["parse_failures"]["count"] == 0
  if made.task == "class":
    assert results["scores"]["uar"]["value"] == 100
    assert np.trace(np.array(results["confusion"]["matrix"])) == len(made.items)


def test_shuffled_answers_score_chance(made):
  """Kills: a metric that rewards the shares of classes, intervals that do not hold chance."""
  rng = np.random.default_rng(0)
  truths = [item.truth for item in made.items]
  order = rng.permutation(len(truths))
  told = records(made, [say(made, truths[j], i) for i, j in enumerate(order)])
  results = summarise(made, told, resamples=300, seed=1)
  metric = "uar" if made.task == "class" else MAIN[made.task]
  score = results["scores"][metric]
  assert score["low"] < chance(made, truths) < score["high"]
  assert score["low"] < score["value"] < score["high"]


def chance(benchmark, truths) -> float:
  """What answers that do not look at the picture score in the mean, with the truth's shares."""
  if benchmark.task == "class":
    return 100 / len(set(truths))
  if benchmark.task == "age":
    ages = np.array(truths)
    return float(np.abs(ages[:, None] - ages[None]).mean())
  share = np.array([[c in t for c in benchmark.classes] for t in truths]).mean(0)
  if benchmark.task == "units":
    return 100 * float(np.mean(share))  # F1 of a coin that falls like the truth
  return 100 * float(np.mean(share**2 + (1 - share) ** 2))


def test_silence_is_the_worst_answer(made):
  """Kills: answers without a label left out of the denominator."""
  results = summarise(made, records(made, ["Hm."] * len(made.items)), resamples=10)
  assert results["parse_failures"]["count"] == results["n"] == len(made.items)
  value = results["scores"][MAIN[made.task]]["value"]
  if made.task == "age":
    truths = np.array([item.truth for item in made.items])
    assert value == pytest.approx(np.maximum(truths, 100 - truths).mean())
    assert "age_mae_answered" not in results["scores"]
  else:
    assert value == 0


def test_people_are_told_apart(made):
  """Kills: a release's demographics unread, a group without its metrics."""
  told = records(made, [say(made, item.truth, i) for i, item in enumerate(made.items)])
  results = summarise(made, told, resamples=10)
  expected = {
    "rafdb": {"age", "gender", "race"},
    "cremad": {"age", "gender", "race"},
    "celeba": {"age", "gender"},
    "utkface": {"age", "gender", "race"},
    "morph": {"age", "gender", "race"},
    "bp4d": {"gender"},
  }
  whole = {"age", "gender", "race"} if made.name.startswith("fairface") else set()
  assert set(results["fairness"]) == expected.get(made.name, whole)
  for found in results["fairness"].values():
    assert sum(group["n"] for group in found["groups"].values()) == len(made.items)
    assert found["without"] == 0
    for gap in found["gaps"].values():
      assert gap["gap"]["low"] <= gap["gap"]["value"] <= gap["gap"]["high"]


def test_prompts_are_the_published_ones(tmp_path):
  """Kills: a prompt changed, the word video asked of a picture, a number that is one off."""
  for name in ("rafdb", "dfew", "disfa", "utkface", "celeba", "ffpp"):
    (tmp_path / name).mkdir()
    released_folders.MAKERS[name](tmp_path / name)
  asked = lambda name, **o: open_benchmark(name, tmp_path / name, o).items[0].prompt
  assert asked("dfew") == "<video>\nWhat emotion is shown in the video?"
  assert asked("rafdb") == "<image>\nWhat emotion is shown in the image?"
  assert asked("disfa") == "<image>\nList the facial action units visible in the supplied picture."
  age = "<image>\nHow old do you think the person in the picture is, and what makes you think so?"
  assert asked("utkface", split="all") == age
  assert asked("celeba") == "<image>\nDescribe the person's face as seen in the photograph."
  methods = {"methods": "Deepfakes"}
  assert asked("ffpp", **methods) == "<video>\nIs the video authentic, or is it a fake?"
  assert asked("ffpp", prompt="official/7", **methods) == "<video>\nCould the video be a hoax?"
  assert asked("dfew", prompt="official/1") == "<video>\nWhat feeling does the video evoke?"
  closed = asked("rafdb", prompt="closed")
  assert "neutral, happiness, sadness" in closed and "one of these words" in closed
  for wrong in ("official/11", "official/0", "open"):
    with pytest.raises(ValueError, match=f"prompt '{wrong}' of the task expression - expected"):
      asked("rafdb", prompt=wrong)


def test_known_confusions_of_expressions(tmp_path):
  """Kills: UAR that weighs classes by size, a class outside the benchmark that is dropped."""
  name, _ = released_folders.rafdb(tmp_path, 6)
  lines = ["train_00001.jpg 1", *(f"test_{i:04d}.jpg {c}" for i, c in enumerate("444457", 1))]
  released_folders.write(tmp_path / "EmoLabel/list_patition_label.txt", lines)
  benchmark = open_benchmark(name, tmp_path, {})
  texts = ["Happy.", "joy", "Neutral", "contempt", "sadness it is", "Hm."]
  results = summarise(benchmark, records(benchmark, texts), resamples=50)
  scores = results["scores"]
  assert scores["accuracy"]["value"] == pytest.approx(100 * 3 / 6)
  assert scores["uar"]["value"] == pytest.approx(100 * (2 / 4 + 1 + 0) / 3)
  assert results["each"]["recall"]["happiness"]["value"] == 50
  row = dict(zip(results["confusion"]["classes"], results["confusion"]["matrix"], strict=True))
  assert row["happiness"] == [1, 2, 0, 0, 0, 0, 0, 1]  # contempt is no class of this benchmark
  assert row["neutral"] == [0, 0, 0, 0, 0, 0, 0, 1]
  assert results["parse_failures"]["count"] == 1


def test_known_confusions_of_units(tmp_path):
  """Kills: F1 by samples, units that no frame has counted as 0, intensity 1 counted as active."""
  for unit in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26):
    grades = {1: (2, 0, 5), 12: (3, 3, 1)}.get(unit, (0, 1, 0))
    lines = [f"{f},{g}" for f, g in enumerate(grades, 1)]
    released_folders.write(tmp_path / f"ActionUnit_Labels/SN001/SN001_au{unit}.txt", lines)
  released_folders.touch(tmp_path / "Videos_LeftCamera/LeftVideoSN001_comp.avi")
  benchmark = open_benchmark("disfa", tmp_path, {})
  assert [item.truth for item in benchmark.items] == [[1, 12], [12], [1]]
  texts = ["AU1 and AU12", "AU1, AU12 and AU15", "AU4"]
  results = summarise(benchmark, records(benchmark, texts), resamples=20)
  each = results["each"]["f1"]
  assert each["AU1"]["value"] == pytest.approx(100 * 2 * 1 / (2 * 1 + 1 + 1))
  assert each["AU12"]["value"] == 100 and set(each) == {"AU1", "AU12"}
  assert results["scores"]["f1"]["value"] == pytest.approx((50 + 100) / 2)


def test_known_errors_of_ages(tmp_path):
  """Kills: a mean over the answered alone, the age of one person told of another."""
  for name in ("20_0_0_201701010000.jpg", "40_1_1_201701010000.jpg", "70_0_2_201701010000.jpg"):
    released_folders.touch(tmp_path / name)
  benchmark = open_benchmark("utkface", tmp_path, {"split": "all"})
  texts = ["24 years old", "in her forties", "Who knows."]
  scores = summarise(benchmark, records(benchmark, texts), resamples=20)["scores"]
  assert scores["age_mae"]["value"] == pytest.approx((4 + 5 + 70) / 3)
  assert scores["age_mae_answered"]["value"] == pytest.approx((4 + 5) / 2)
  assert scores["within_5_years"]["value"] == pytest.approx(100 * 2 / 3)


def test_known_errors_of_attributes(tmp_path):
  """Kills: accuracy over what is present alone, silence taken for agreement."""
  name, _ = released_folders.celeba_folder(tmp_path, 5)
  benchmark = open_benchmark(name, tmp_path, {})
  assert [item.id for item in benchmark.items] == ["000004.jpg", "000005.jpg"]
  texts = ["A man with glasses and no beard.", "x"]
  results = summarise(benchmark, records(benchmark, texts), resamples=20)
  said, truth = {"Male", "Eyeglasses", "No_Beard"}, set(benchmark.items[0].truth)
  right = 40 - len(said ^ truth)
  assert results["scores"]["mean_accuracy"]["value"] == pytest.approx(100 * (right / 40 + 0) / 2)


def test_celeba_may_be_asked_one_by_one(tmp_path):
  """Kills: a question of another attribute, pictures that are resampled in fortieths."""
  name, _ = released_folders.celeba_folder(tmp_path, 5)
  benchmark = open_benchmark(name, tmp_path, {"ask": "each"})
  assert len(benchmark.items) == 80 and benchmark.cluster == "picture"
  item = next(i for i in benchmark.items if i.id == "000004.jpg/Wearing_Hat")
  once = open_benchmark(name, tmp_path, {}).items[0]
  assert item.truth == ("yes" if "Wearing_Hat" in once.truth else "no")
  assert "picture: Wearing Hat?" in item.prompt
  assert [benchmark.parse(t, item) for t in ("Yes.", "no, it is not", "maybe")] == [
    "yes",
    "no",
    None,
  ]
  results = summarise(benchmark, records(benchmark, ["Yes"] * 80), resamples=20)
  share = np.mean([i.truth == "yes" for i in benchmark.items])
  assert results["scores"]["accuracy"]["value"] == pytest.approx(100 * share)
  assert set(results["groups"]["attribute"]) == set(NOUNS)


def test_rows_without_a_truth_are_left_out_by_name(tmp_path):
  """Kills: another denominator in silence."""
  name, options = released_folders.utkface(tmp_path, 4)
  released_folders.touch(tmp_path / "part1/61_1_20170109.jpg")
  benchmark = open_benchmark(name, tmp_path, options)
  assert len(benchmark.items) == 4
  assert [r.id for r in benchmark.left_out] == ["part1/61_1_20170109.jpg"]
  told = summarise(benchmark, records(benchmark, ["5"] * 4), resamples=5)
  assert told["left_out"]["count"] == 1 and told["n"] == 4
  with pytest.raises(ValueError, match=r"4 items; 1 have none"):
    summarise(benchmark, records(benchmark, ["5"] * 4)[1:], resamples=5)
  (tmp_path / "b").mkdir()
  name, options = released_folders.bp4d(tmp_path / "b", 3)
  path = tmp_path / "b/AUCoding/AU_OCC/F001_T1.csv"
  header, first, *rest = path.read_text().splitlines()
  path.write_text("\n".join([header, ",".join(["11", *["9"] * 14]), *rest]))
  benchmark = open_benchmark(name, tmp_path / "b", options)
  assert len(benchmark.items) == 11 and first
  assert benchmark.left_out[0].id == "F001_T1/11"
  (tmp_path / "b/Sequences/M003/T8/0012.jpg").unlink()
  (lacks,) = missing(open_benchmark(name, tmp_path / "b", options))
  assert lacks.id == "M003_T8/12" and "12.jpg: no such file" in lacks.reason


def test_a_clip_that_is_not_there_counts(tmp_path):
  """Kills: a clip that was not unpacked out of the denominator."""
  name, options = released_folders.dfew(tmp_path, 10)
  (tmp_path / "Clip/original/part_0/1.mp4").unlink()
  benchmark = open_benchmark(name, tmp_path, options)
  item = next(i for i in benchmark.items if i.id == "00001")
  assert len(benchmark.items) == 10 and "no clip 1.mp4" in item.error
  assert {i.groups["fold"] for i in benchmark.items} == set("12345")
  assert len(open_benchmark(name, tmp_path, {"fold": "2"}).items) == 2


@pytest.mark.parametrize(
  ("name", "path", "text", "words"),
  [
    (
      "rafdb",
      "Annotation/manual/test_0003_manu_attri.txt",
      "1 2\n9\n9\n9\n",
      "test_0003_manu_attri",
    ),
    ("cremad", "VideoDemographics.csv", "ActorID,Age\n1001,20\n", "no column Sex, Race"),
    ("cremad", "VideoDemographics.csv", "ActorID,Age,Sex,Race\n1001,x,Male,Asian\n", "Age 'x'"),
    ("cremad", "VideoDemographics.csv", "ActorID,Age,Sex,Race\n1001,20,M,Asian\n", "is 'M'"),
    ("bp4d", "AUCoding/AU_OCC/F001_T1.csv", "0,1,2\n11,0,1\n", "no column of unit 4"),
    (
      "bp4d",
      "AUCoding/AU_OCC/M003_T8.csv",
      "0,1,2,4,6,7,10,12,14,15,17,23,24\n11,0,1,0,1,0,1,0,1,0,1,0,2\n",
      "M003_T8.csv, line 2: .* expected a frame, and 0, 1 or 9 of each unit",
    ),
    (
      "fairface_age",
      "fairface_label_val.csv",
      "h\nval/1.jpg,9,Male,White,True\n",
      "line 2: age '9'",
    ),
  ],
)
def test_damaged_labels_are_named(name, path, text, words, tmp_path):
  """Kills: a label file of something else read as this one's."""
  name, options = released_folders.MAKERS[name](tmp_path)
  (tmp_path / path).write_text(text)
  with pytest.raises(ValueError, match=words):
    open_benchmark(name, tmp_path, options)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"facexbench"}))
def test_an_empty_folder_is_named(name, tmp_path):
  """Kills: a benchmark of nothing."""
  with pytest.raises((FileNotFoundError, ValueError), match=r"expected|check"):
    open_benchmark(name, tmp_path, {})


@pytest.mark.parametrize(
  ("name", "options", "words"),
  [
    ("disfa", {"units": "9"}, "units=9: expected 8 or 12"),
    ("disfa", {"every": "x"}, "is 'x' - expected a whole number"),
    ("dfew", {"fold": "6"}, "fold=6: expected 0 to 5"),
    ("affectnet", {"classes": "9"}, "classes=9: expected 7 to 8"),
    ("celeba", {"ask": "all"}, "ask is 'all'"),
    ("ffpp", {"split": "tests"}, "split is 'tests'.*did you mean 'test'"),
    ("utkface", {"split": "train"}, "split is 'train'"),
    ("bp4d", {"subjects": "F001+F009"}, "no 'F009' - expected some of"),
  ],
)
def test_wrong_settings_are_named(name, options, words, tmp_path):
  """Kills: a setting that nobody reads."""
  released_folders.MAKERS[name](tmp_path)
  with pytest.raises(ValueError, match=words):
    open_benchmark(name, tmp_path, options)


def test_published_rows_are_of_known_metrics():
  """Kills: a figure of another table, a fraction among percentages."""
  names = ("dfew", "cremad", "rafdb", "morph", "utkface", "celeba", "ffpp")
  own = {name: published.rows(name) for name in names}
  assert [len(own[name]) for name in names] == [19, 16, 15, 12, 12, 13, 13]
  for name, rows in own.items():
    for row in rows:
      assert row.source.startswith("Face-LLaVA, arXiv 2504.07198, table")
      for metric, value in row.values.items():
        low, high = (1.5, 8) if metric == "age_mae" else (20, 96)
        assert low < value < high, (name, row)
  pick = lambda name, setting: next(
    r.values for r in own[name] if (r.model, r.setting) == ("Face-LLaVA", setting)
  )
  assert pick("dfew", "zero-shot") == {"uar": 46.9, "accuracy": 56.4}
  assert pick("cremad", "fine-tuned") == {"uar": 79.8, "accuracy": 81.3}
  assert pick("utkface", "zero-shot") == {"age_mae": 4.89}
  assert pick("celeba", "fine-tuned") == {"mean_accuracy": 90.1}
  assert len(published.ratings()) == 8 and published.notes() and not published.rows("disfa")


@pytest.mark.parametrize(
  ("parser", "text", "label"),
  [
    (answers.expression, "Her smile fades; she looks sad.", "sadness"),
    (answers.expression, "He smiles widely.", "happiness"),
    (answers.expression, "Not happy but angry.", "anger"),
    (answers.expression, "She is not smiling, and she looks afraid.", "fear"),
    (answers.expression, "No clear emotion is visible.", "neutral"),
    (answers.expression, "It cannot be told.", None),
    (answers.age, "between 25 and 30 years old", 27.5),
    (answers.age, "He has 2 scars and is 61 years of age", 61),
    (answers.age, "in her early thirties", 32),
    (answers.age, "Late 20s.", 28),
    (answers.age, "in his 40s", 45),
    (answers.age, "twenty-five years old", 25),
    (answers.age, "aged about 33", 33),
    (answers.age, "20-29", 24.5),
    (answers.age, "around 45.", 45),
    (answers.age, "130 years old", None),
    (answers.age, "old", None),
    (answers.deepfake, "There are no signs of manipulation.", "real"),
    (answers.deepfake, "The video is not authentic.", "fake"),
    (answers.deepfake, "It has been tampered with.", "fake"),
    (answers.deepfake, "I cannot say.", None),
    (answers.band, "more than 70", "70 or more"),
    (answers.band, "25 years old", "20-29"),
    (answers.band, "3-9", "3-9"),
    (answers.race, "South-East Asian", "Southeast Asian"),
    (answers.race, "an African American woman", "Black"),
    (answers.gender, "She is a woman.", "Female"),
  ],
)
def test_parsers(parser, text, label):
  """Kills: a rule of the table of synonyms or of denial that is not applied."""
  assert parser(text) == label


@pytest.mark.parametrize(
  ("text", "units"),
  [
    ("AU6 (cheek raiser) and AU12 (Lip corner puller).", [6, 12]),
    ("Action units 1, 2 and 4.", [1, 2, 4]),
    ("AU4 (brow lowerer) is absent, while AU12 is present.", [12]),
    ("AU12, but not AU6.", [12]),
    ("AU06, AU12 and AU025", [6, 12, 25]),
    ("The inner brow raiser and lips part.", [1, 25]),
    ("No action units are visible.", []),
    ("AU15 alone.", []),
    ("none", []),
    ("A face.", None),
  ],
)
def test_units_are_read(text, units):
  """Kills: absent units counted as stated, units of other benchmarks, an empty set for silence."""
  assert answers.action_units(text, (1, 2, 4, 6, 9, 12, 25, 26)) == units


def test_synonyms_cover_every_label():
  """Kills: a class that no answer can state."""
  assert set(synonyms.UNITS) == set(ACTION_UNITS)
  assert set(synonyms.ATTRIBUTES) | {"No_Beard", "Male", "Young"} == set(NOUNS)


def test_unreadable_labels_are_left_out_by_name(tmp_path):
  """Kills: a picture without an annotation asked about, one bad file that ends everything."""
  name, options = released_folders.affectnet(tmp_path / "a", 12)
  marks = tmp_path / "a/val_set/annotations"
  (marks / "3_exp.npy").unlink()
  np.save(marks / "5_exp.npy", np.array("8"))
  (marks / "7_exp.npy").write_bytes(b"no array")
  benchmark = open_benchmark(name, tmp_path / "a", options)
  assert len(benchmark.items) == 9
  reasons = {r.id: r.reason for r in benchmark.left_out}
  assert "no such annotation" in reasons["3"] and "holds '8'" in reasons["5"]
  assert "is no array of one number" in reasons["7"]
  fewer = open_benchmark(name, tmp_path / "a", {"classes": "7"})
  assert "contempt" not in {i.truth for i in fewer.items} and len(fewer.classes) == 7
  name, options = released_folders.cremad(tmp_path / "c", 24)
  released_folders.touch(tmp_path / "c/VideoFlash/1001_what.flv")
  benchmark = open_benchmark(name, tmp_path / "c", options)
  assert [r.id for r in benchmark.left_out] == ["1001_what"] and len(benchmark.items) == 24
  last = open_benchmark(name, tmp_path / "c", {"actors": "3"})
  assert {i.groups["actor"] for i in last.items} == {"1022", "1023", "1024"}


def test_an_item_comes_once(tmp_path):
  """Kills: an item that counts twice."""
  name, options = released_folders.utkface(tmp_path, 3)
  benchmark = open_benchmark(name, tmp_path, options)
  with pytest.raises(ValueError, match="utkface: 1 ids come twice, such as part1/"):
    dataclasses.replace(benchmark, items=[*benchmark.items, benchmark.items[1]])
