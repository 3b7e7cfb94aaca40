"""A model asked about labels, and the hand-off in front of its questions."""

import argparse
import dataclasses

import numpy as np
import pytest

from facejax import cli
from facejax.knowledge import asking, command, cooccurrence, rules, training_free
from facejax.knowledge.handoff import Handoff
from facejax.knowledge.projection import Projection
from facejax.knowledge.telling import Telling
from facejax.types import Medium, Sample, Turn

FACES = rules.load("age_gender_race")
LABELS = FACES.labels
SAID = Handoff(order="table", threshold=0.5, item="{label}")


def sample(name, kind="image", *turns):
  medium = Medium(kind, np.zeros((1, 8, 8, 3), np.uint8))
  return Sample(name, (*turns, Turn("human", f"<{kind}>\nWho is this?")), (medium,))


class Model:
  """Says yes to one label of each picture: the n-th one of picture n."""

  def __init__(self, openings=(5, 9)):
    self.openings, self.asked = dict(zip((asking.YES, asking.NO), openings, strict=True)), []

  def opening(self, text):
    return self.openings[text]

  def chances(self, samples, tokens):
    assert list(tokens) == [5, 9]
    self.asked += [s.conversation[-1].text for s in samples]
    share = [0.9 if s.id.endswith(f"/{self._label(s)}") else 0.2 for s in samples]
    return np.array([[0.01 * p, 0.01 * (1 - p)] for p in share])

  def _label(self, one):
    return LABELS.labels[int(one.id.split("/")[0])]

  def label_scores(self, samples):
    return np.array([self.scores(int(s.id)) for s in samples])

  def scores(self, n):
    return np.where(np.arange(len(LABELS)) == n, 0.9, 0.2)


def test_yes_or_no_of_every_label():
  """Kills: scores of another picture or label; chances that are not shares of yes and no; the
  sample's own question asked; a picture that the question lost."""
  model = Model()
  got = asking.yes(model, [sample("2"), sample("0")], LABELS)
  np.testing.assert_allclose(got, [model.scores(2), model.scores(0)])
  assert model.asked[1] == "<image>\n" + asking.QUESTION.format(words=LABELS.say(LABELS.labels[1]))
  assert len(model.asked) == 2 * len(LABELS)
  asking.yes(
    model, [sample("1", "video", Turn("human", "Hm?"), Turn("gpt", "Yes"))], LABELS, "{words}!"
  )
  assert model.asked[-1] == f"<video>\n{LABELS.say(LABELS.labels[-1])}!"


def test_yes_or_no_that_cannot_be_read():
  # Kills: chances of the same token compared with each other; one question for all labels.
  with pytest.raises(ValueError, match=r"'Yes.' and 'No.' both begin with token 5"):
    asking.yes(Model((5, 5)), [sample("0")], LABELS)
  with pytest.raises(ValueError, match=r"question 'Really\?' - expected \{words\}"):
    asking.yes(Model(), [sample("0")], LABELS, "Really?")


@pytest.mark.parametrize("source", ["head", "answers"])
@pytest.mark.parametrize("project", [False, True])
def test_labels_are_told_in_front_of_the_question(source, project):
  """Kills: a sentence about another picture, in front of the placeholder, or in an earlier turn;
  rules that are not applied, or always; a source that is not the one asked for."""
  turns = (Turn("human", "Hello."), Turn("gpt", "Hello."))
  asked = [sample("1"), sample("3", "image", *turns)]
  how = Telling(SAID, source, project=project)
  model = Model()
  told = how.told(model, asked, "age_gender_race")
  words = [LABELS.say(LABELS.labels[i]) for i in (1, 3)]
  text = told[0].conversation[-1].text
  assert text.startswith(f"<image>\nDetected attributes: {words[0]}")
  assert text.endswith(".\nWho is this?") and words[1] not in text
  assert words[1] in told[1].conversation[-1].text and told[1].conversation[:2] == turns
  assert told[0].media is asked[0].media and bool(model.asked) == (source == "answers")
  got, known = how.scores(model, asked, "age_gender_race")
  plain = np.array([model.scores(1), model.scores(3)])
  want = Projection(known).probabilities(plain) if project else plain
  np.testing.assert_allclose(got, want)
  assert not np.allclose(want, plain) or not project


def test_counts_pull_answers():
  # Kills: counts that nobody reads.
  values = np.random.default_rng(0).integers(0, 2, (200, len(LABELS))).astype(np.int8)
  counts = cooccurrence.count([values], LABELS)
  how = Telling(SAID, "answers", project=False, counts=counts)
  got, _ = how.scores(Model(), [sample("1")], "age_gender_race")
  known = training_free.statistics(counts, LABELS)
  np.testing.assert_allclose(got, training_free.refine(Model().scores(1)[None], known))


def test_off_asks_for_nothing():
  # Kills: a head asked for scores by everyone who does not want them; a question that changes.
  asked = [sample("0")]
  assert Telling().told(None, asked, None) == asked
  assert Telling(SAID).told(None, [], "age_gender_race") == []


@pytest.mark.parametrize(
  "how, head, message",
  [
    (Telling(SAID), None, r"from the label head, but the model has none \(model.labels is None\)"),
    (Telling(SAID, rules="celeba40"), "expressions", "rules 'celeba40' for a label head of 'expr"),
    (Telling(SAID, "answers"), None, "without a label head, and no rules say which"),
  ],
)
def test_labels_that_nobody_scores(how, head, message):
  """Kills: a random head's labels told; the wrong names beside scores; a KeyError."""
  with pytest.raises(ValueError, match=message):
    how.told(Model(), [sample("0")], head)


def test_rules_of_answers():
  # Kills: rules of the head in place of those asked for; none for a model without a head.
  assert Telling(SAID, "answers", "expressions").rule_set(None).labels.name == "expressions"
  assert Telling(SAID, "answers", "expressions").rule_set("celeba40").labels.name == "expressions"
  assert Telling(SAID, "answers").rule_set("celeba40").labels.name == "celeba40"
  with pytest.raises(ValueError, match=r"Telling.source.*'heads'"):
    Telling(SAID, "heads")


def flags(*given):
  parser = argparse.ArgumentParser()
  command.add_chat_flags(parser)
  return parser.parse_args(given)


def test_flags(tmp_path):
  """Kills: labels told unasked; a flag that is read and forgotten."""
  assert command.telling(flags()) == Telling()
  values = np.ones((3, len(LABELS)), np.int8)
  cooccurrence.save(cooccurrence.count([values], LABELS), tmp_path / "counts.npz")
  got = command.telling(
    flags(
      "--labels=answers",
      "--labels-order=table",
      "--labels-threshold=0.25",
      "--labels-rules=age_gender_race",
      f"--labels-counts={tmp_path / 'counts.npz'}",
      "--labels-raw",
    )
  )
  want = Telling(Handoff(order="table", threshold=0.25), "answers", "age_gender_race", False)
  assert dataclasses.replace(got, counts=None) == want and got.counts.rows == 3
  assert command.telling(flags("--labels=head")) == Telling(Handoff(order="score"))


@pytest.mark.parametrize(
  "given, message",
  [
    (("--labels-raw",), "--labels-raw without --labels - expected --labels=head or answers"),
    (("--labels-rules=celeba40",), "--labels-rules without --labels"),
    (("--labels-order=table",), "--labels-order without --labels"),
    (("--labels-threshold=0.3",), "--labels-threshold without --labels"),
    (("--labels=head", "--labels-counts=x"), "--labels-counts=x with --labels=head"),
    (("--labels=answers", "--labels-counts=none.npz"), "--labels-counts=none.npz: no such file"),
    (("--labels=head", "--labels-threshold=1.5"), "threshold=1.5"),
  ],
)
def test_flags_that_do_not_fit(given, message):
  # Kills: a flag that is dropped in silence.
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    command.telling(flags(*given))


def test_the_command_hands_its_flags_on(monkeypatch, capsys):
  # Kills: flags that chat never hears of.
  seen = {}
  reply = argparse.Namespace(text="She smiles.", metadata={})
  monkeypatch.setattr("facejax.chat.chat", lambda *a, **how: seen.update(how) or reply)
  assert cli.main(["chat", "--workdir=w", "--image=i", "--labels=head", "Why?"]) == 0
  assert seen["telling"] == Telling(Handoff(order="score"))
  assert "She smiles." in capsys.readouterr().out
