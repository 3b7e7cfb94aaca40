r"""The simulated judge behind the fake endpoint: prints its address, and serves until it is killed.

    python experiments/judge/serve.py \
      '{"noise": 0.5, "favour": [1, 0], "faults": 0.3, "bad": 0.1, "seed": 0}'
"""

import asyncio
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1] / "annotate"))

from fake_endpoint import FakeEndpoint
from simulated_judge import SimulatedJudge


async def main(noise: float, favour: list[float], faults: float, bad: float, seed: int) -> None:
  """Serves the judge that the settings describe."""
  endpoint = FakeEndpoint(faults, bad_answers=bad, seed=seed)
  endpoint.reply, endpoint.drip = SimulatedJudge(noise, tuple(favour), seed), 0.0
  print(await endpoint.start(), flush=True)
  await asyncio.Event().wait()


if __name__ == "__main__":
  asyncio.run(main(**json.loads(sys.argv[1])))
