"""Prompts, by name and version. Every record names its prompt and the hash of its text.

FairFaceGPT's code is released (FaceLLM): the eight attributes, their order and the questions that
are stored are its own. The wording of what is sent is ours, after its description; so is all of
FaceInstruct, of which Face-LLaVA's paper shows the steps and the four criteria, not the prompts.
A text that changes gets the next number: an old answer is then not taken for a new prompt's.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What is sent with the media.

  Attributes:
    id: name and version, such as "fairface/facts/1".
    system: the system turn.
    text: the user's turn; "{name}" stands for a fact.
  """

  id: str
  system: str
  text: str

  @property
  def sha256(self) -> str:
    """Of system turn and text, facts not yet filled in."""
    return hashlib.sha256(json.dumps([self.system, self.text]).encode()).hexdigest()

  def filled(self, facts: Mapping[str, str]) -> str:
    """The user's turn. Facts are put in as they are: braces in them stay braces."""
    return self.text.format_map(facts)


# FaceLLM, fairfacegpt.py: question i of an image asks for the i-th, the eighth for all.
ATTRIBUTES = (
  "demographic attributes",
  "facial structure",
  "skin texture",
  "expression and emotion",
  "lighting and image quality",
  "face pose",
  "forensic considerations",
)
FAIRFACE_QUESTIONS = (
  *(f"Describe the {name} of the image based on the visual information." for name in ATTRIBUTES),
  "Describe this image.",
)

_FAIRFACE_SYSTEM = (
  "You are an expert in the analysis of faces who works for forensic and biometric research. You "
  "are shown the picture of a face, and you describe it. Keep to visible traits and stay "
  "objective. According to the question, speak of demographic estimation, facial structure, skin "
  "texture, expression and emotion, lighting and image quality, pose, occlusion, or forensic "
  "considerations. Ethnicity (White, Black, Indian, East Asian, Southeast Asian, Middle Eastern "
  "or Latino), gender and age may be told to you; they are correct. Nobody is to be identified. "
  "Answer what is asked and nothing else, in plain paragraphs without lists or headings. Every "
  "picture can be described, so always give a description."
)
_FACTS = "The picture shows a {person}. Ethnicity: {ethnicity}. Age: {age}. "
_SILENT = "Never mention that these facts, or any description, were given to you."

FAIRFACE_ATTRIBUTE = Prompt(
  "fairface/attribute/1",
  _FAIRFACE_SYSTEM,
  _FACTS + "Describe only the {attribute}. Argue from what can be seen in the picture. " + _SILENT,
)
FAIRFACE_IMAGE = Prompt(
  "fairface/image/1", _FAIRFACE_SYSTEM, _FACTS + "Describe this picture. " + _SILENT
)

_WRITER_SYSTEM = (
  "You write training data for a model that looks at faces. You are shown the crop of a face, or "
  "frames of a clip of one in their order, with its label, which people gave and which you take "
  "for correct. Answer the question as one who sees the face and has never seen the label: state "
  "the label's content first, then the visible evidence for it. Describe nothing that cannot be "
  "seen, identify nobody, and do not speak of a label, an annotation or instructions. Two to five "
  "sentences, in plain English."
)
_STYLE = {
  "expression": (
    "The label is an emotion. Name it, and say what brows, eyes, cheeks and mouth do; of a clip, "
    "how that changes from its beginning to its end."
  ),
  "action_units": (
    "The label lists facial action units. Name each with its number and its name, as in AU12 (Lip "
    "corner puller), with the movement that shows it; name no other."
  ),
  "attributes": (
    "The label lists attributes that the face has. Put all of them into one or two sentences of "
    "description, and add none that contradicts them."
  ),
  "age": (
    "The label is an age in years. Open with it, as in '31 years old', and go on with skin, "
    "hair, shape of the face and whatever else speaks for it."
  ),
  "deepfake": (
    "The label says whether the face is real or was manipulated. Open with 'Real' or 'Fake', and "
    "go on with borders, light, texture, symmetry and, of a clip, steadiness over time."
  ),
}
WRITERS = {
  task: Prompt(
    f"faceinstruct/{task}/1",
    _WRITER_SYSTEM,
    "Label: {label}\nQuestion: {question}\n" + style,
  )
  for task, style in _STYLE.items()
}

# The four criteria of Face-LLaVA's annotation figure, and what is given with them there.
CRITERIA = ("label_accuracy", "media_consistency", "label_consistency", "overall")
RATER = Prompt(
  "faceinstruct/rater/1",
  "You check training data for a model that looks at faces. Be strict: whoever trains on it "
  "believes it.",
  "The picture, or the frames of a clip in their order, shows a face.\nLabel, given by people: "
  "{label}\nQuestion: {question}\nDescription: {answer}\n"
  "Rate from 1 (useless) to 10 (perfect):\n"
  "label_accuracy: does the label fit what is seen?\n"
  "media_consistency: is all that the description says to be seen?\n"
  "label_consistency: does the description say what the label says?\n"
  "overall: how good is question and description as a training sample?\n"
  'Answer with JSON and nothing else: {{"label_accuracy": n, "media_consistency": n, '
  '"label_consistency": n, "overall": n, "reason": "one sentence"}}',
)

PROMPTS = (FAIRFACE_ATTRIBUTE, FAIRFACE_IMAGE, *WRITERS.values(), RATER)
