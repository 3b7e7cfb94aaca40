"""Answers and questions that are kept, and those that are not."""

import pytest

from facejax.annotate import filters
from facejax.annotate.unit import Answer


def answered(text: str, finish: str = "stop", refusal: str = "") -> Answer:
  return Answer(text, finish, refusal, "id", "model", (3, 5), 0.1)


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("I'm sorry, but I can't help with that request at all.", "refused"),
    ("I\u2019m sorry, but I can\u2019t assist with this.", "refused"),
    ("I\u2019m unable to describe this picture, oval as it is.", "refused"),
    ("\uff29 \uff43\uff41\uff4e\uff4e\uff4f\uff54 describe this picture of a face.", "refused"),
    ("  I  CANNOT describe people in   pictures like this one.", "refused"),
    ("The face is oval. That said, I would rather not, it is against my guidelines.", "refused"),
    ("While I can't identify this man, he has short hair.", "refused"),
    ("As an AI, faces are not something to be described.", "refused"),
    ("", "empty"),
    (" \n ", "empty"),
    ("A face.", "too_short"),
    ("word " * 601, "too_long"),
    ("Das Gesicht ist oval. 这张脸是椭圆形的，皮肤光滑，光线均匀。", "script"),
    ("На этом лице видна улыбка и ровная кожа.", "script"),
    ("Based on the given description, the man is young.", "label_leak"),
    ("The provided age fits the smooth skin.", "label_leak"),
    ("As stated in the prompt, she is a woman of 30.", "label_leak"),
    ("As you mentioned, this boy is about five.", "label_leak"),
    ("The lines fit the ground-truth label of anger.", "label_leak"),
    ("According to the label this is surprise, and the mouth is open.", "label_leak"),
    # Kept: what only looks like one of the above.
    ("31 years old", ""),
    ("The smile is wide and lifts the cheeks, so the eyes narrow. I can't see the ears.", ""),
    ("Gandhi will not be named here, but the face smiles.", ""),
    ("Based on the visual information provided, the light comes from the left.", ""),
    ("The description of the light is simple: it is even.", ""),
    ("A smile, café lighting and a naïve gaze.", ""),
    ("The kana か is written on the shirt of the young man who is smiling here.", ""),
  ],
)
def test_texts(text, reason):
  """Kills: typographic apostrophes or spaces that hide a refusal; phrases found inside words;
  a leak phrase that catches honest talk of visual information; a share taken for a count."""
  assert filters.judge(answered(text)) == reason


def test_marks_of_the_endpoint_come_first():
  """Kills: finish_reason or the refusal field ignored; a cut answer kept because it reads well."""
  good = "The face is oval and the light is even."
  assert filters.judge(answered(good, "length")) == "cut_off"
  assert filters.judge(answered(good, "content_filter")) == "content_filter"
  assert filters.judge(answered(good, refusal="no")) == "refused"
  assert filters.judge(answered("", refusal="no")) == "refused"
  assert filters.judge(answered("", "length")) == "cut_off"


def test_limits_are_read():
  """Kills: limits of the module used in place of those given; bounds off by one."""
  text = "one two three four"
  assert filters.judge(answered(text), filters.Limits(words=(4, 4))) == ""
  assert filters.judge(answered(text), filters.Limits(words=(5, 9))) == "too_short"
  assert filters.judge(answered(text), filters.Limits(words=(1, 3))) == "too_long"
  mixed = "abc де and fgh"  # 2 of 11 letters
  assert filters.judge(answered(mixed), filters.Limits(other_script=0.2)) == ""
  assert filters.judge(answered(mixed), filters.Limits(other_script=0.18)) == "script"


_GOOD = '{"label_accuracy": 9, "media_consistency": 8, "label_consistency": 10, "overall": 7.5'


@pytest.mark.parametrize(
  ("text", "overall"),
  [
    (_GOOD + ', "reason": "fits"}', 7.5),
    ("```json\n" + _GOOD + "}\n```", 7.5),
    (_GOOD, None),  # truncated
    (_GOOD.replace("9", "11") + "}", None),
    (_GOOD.replace("9", "0") + "}", None),
    (_GOOD.replace("9", "true") + "}", None),
    (_GOOD.replace("9", '"9"') + "}", None),
    (_GOOD.replace('"overall"', '"total"') + "}", None),
    ("[9, 9, 9, 9]", None),
    ("9 out of 10", None),
  ],
)
def test_ratings(text, overall):
  """Kills: a missing criterion, a text or a number off the scale taken for a rating."""
  found = filters.rating(text)
  assert (found and found["overall"]) == overall
  assert filters.judge_rating(answered(text)) == ("" if overall else "no_rating")


def test_a_rater_may_refuse():
  """Kills: a rater's refusal or cut answer reported as if it had no JSON."""
  assert filters.judge_rating(answered("I'm sorry, I can't rate this.")) == "refused"
  assert filters.judge_rating(answered(_GOOD + "}", "length")) == "cut_off"
  assert filters.judge_rating(answered("", "content_filter")) == "content_filter"


@pytest.mark.parametrize(
  ("question", "labels", "leak"),
  [
    ("Why is this man happy?", {"label": "happy"}, "happy"),
    ("Why does she look UNHAPPY?", {"label": "happy"}, ""),
    ("How old is this 25 year old?", {"label": 25}, "25"),
    ("Is 250 too much?", {"label": 25}, ""),
    ("Is this face real or fake?", {"label": "fake"}, ""),
    ("How can one tell that it is fake?", {"label": "fake"}, "fake"),
    ("How can one tell that it is manipulated?", {"label": "fake"}, "fake"),
    ("How can one tell that it is fake?", {"label": "real"}, ""),
    ("Where are the eyeglasses?", {"label": ["smiling", "eyeglasses"]}, "eyeglasses"),
    ("Is she middle eastern?", {"age": "20-29", "race": "Middle Eastern"}, "Middle Eastern"),
    ("Describe this image.", {"age": "20-29", "gender": "Male", "race": "White"}, ""),
  ],
)
def test_questions_that_give_the_label_away(question, labels, leak):
  """Kills: parts of words found; lists not looked into; "real or fake?" refused."""
  assert filters.question_leak(question, labels) == leak
