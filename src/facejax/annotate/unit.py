"""What one question about one file needs: unit -> result. The recipes make the units."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from facejax.annotate.prompts import Prompt
from facejax.types import Kind

# kept: in the dataset. rejected: answered or refused for good. unanswered: the endpoint failed too
# often; the next run asks again. pending: the run stopped before it was asked, or answered.
State = Literal["kept", "rejected", "unanswered", "pending"]


@dataclasses.dataclass(frozen=True)
class Unit:
  """A question to be answered about a picture or a clip.

  Attributes:
    id: unique in its recipe.
    media: path inside the media folder, as the dataset will name it.
    path: the file.
    kind: of the file.
    prompt: what is sent.
    facts: what fills it; the labels are here and not in `question`.
    question: what is stored.
    labels: what the source says, for the record and against leaks.
    extra: fields of the dataset's sample that are passed on, such as landmarks_2d.
  """

  id: str
  media: str
  path: pathlib.Path
  kind: Kind
  prompt: Prompt
  facts: Mapping[str, str]
  question: str
  labels: Mapping[str, Any]
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Recipe(Protocol):
  """Units in the order of the dataset."""

  name: str
  units: Sequence[Unit]


@dataclasses.dataclass(frozen=True)
class Answer:
  """What an endpoint gave, as the journal keeps it.

  Attributes:
    text: "" where there was none.
    finish: the endpoint's finish_reason.
    refusal: its own mark of a refusal; "" for none.
    id: the endpoint's name of the response.
    model: what the endpoint says answered.
    tokens: read and written.
    cost: in the run's currency, at the prices of the day.
    counted: False where the endpoint gave no usage, and tokens are the reserved worst case.
  """

  text: str
  finish: str
  refusal: str
  id: str
  model: str
  tokens: tuple[int, int]
  cost: float
  counted: bool = True


@dataclasses.dataclass(frozen=True)
class Asked:
  """How a call ended; `answer` is the last one, if there was any.

  Attributes:
    state: as a result's.
    reason: why it is not kept; "" if it is.
    answer: the last one that was paid for.
    reasons: why each answer that was paid for cannot be used, in order; "" if it can.
    key: the content hash that it is stored under.
    detail: what the endpoint said, where the reason is its.
  """

  state: State
  reason: str
  answer: Answer | None
  reasons: tuple[str, ...]
  key: str
  detail: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
  """How a unit ended: what the writer and, where there is one, the rater gave."""

  state: State
  reason: str = ""
  detail: str = ""
  sha256: str = ""  # of the media file
  written: Asked | None = None
  rated: Asked | None = None
  rating: Mapping[str, Any] | None = None
