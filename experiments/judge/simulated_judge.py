"""A simulated judge: it reads an answer's quality off the answer, and errs in a known way.

    {"ratings": [{"answer": 1, "media_consistency": 6.3, ...}, ...]}

An answer says its quality itself ("quality 6.30"). A rating is quality + the favour of its place +
normal noise, cut to the scale. Noise follows from the request's idempotency key, so a request that
is sent again gets the same.
"""

import dataclasses
import json
import random
import re
from typing import Any

from fake_endpoint import asked

_CRITERIA = re.compile(r'"(\w+)": n')
_QUALITY = re.compile(r"quality (-?\d+\.\d+)")


@dataclasses.dataclass(frozen=True)
class SimulatedJudge:
  """What stands in a FakeEndpoint's `reply`.

  Attributes:
    noise: standard deviation of a rating.
    favour: added to what stands in a place, from the first on; 0 beyond.
    seed: of the noise.
  """

  noise: float = 0.0
  favour: tuple[float, ...] = ()
  seed: int = 0

  def __call__(self, request: dict[str, Any], name: str) -> str:
    """The answer to a request under an idempotency key."""
    text = asked(request)
    draw = random.Random(f"{self.seed} {name}")
    entries = []
    for place, answer in enumerate(answers(text)):
      quality = float(_QUALITY.search(answer)[1])
      favour = self.favour[place] if place < len(self.favour) else 0.0
      rate = lambda quality=quality + favour: min(max(quality + draw.gauss(0, self.noise), 1), 10)
      scores = {criterion: round(rate(), 3) for criterion in _CRITERIA.findall(text)}
      entries.append({"answer": place + 1, **scores, "reason": "simulated"})
    return json.dumps({"ratings": entries})


def answers(text: str) -> list[str]:
  """The answers in a request's text, by place."""
  begin = text.index("{", text.index("The numbers mean nothing:"))
  found, _ = json.JSONDecoder().raw_decode(text[begin:])
  return [found[str(number)] for number in range(1, len(found) + 1)]
