"""A chat completion endpoint that fails: planned faults, and a bill by idempotency key.

    python experiments/annotate/fake_endpoint.py --port 8791 --faults 0.3

`GET /bills` says what it has counted. An answer is billed when it is made, whether or not it
arrives; a second request of the same Idempotency-Key gets the same answer and no second bill.
Faults follow from seed, key and how often the key was seen, not from the clock.
"""

import argparse
import asyncio
import collections
import contextlib
import hashlib
import json
import random
import re
import subprocess
import sys
import threading
import urllib.request
from typing import Any

# Before the answer is made: not billed. 0 is a request without a fault.
UNPAID = ("rate_limit", "server_error", "reset_before")
# Behind it: billed, and not delivered.
PAID = ("reset_after", "truncated", "bad_gateway", "slow")
# The answer itself is no good: billed and delivered.
ANSWERS = ("refusal", "cut_off", "leak")
_REFUSAL = "I'm sorry, but I can't help with identifying people."
_LEAK = "Based on the given description, the face is that of an adult."


class FakeEndpoint:
  """An HTTP server on this machine.

  Attributes:
    bills: idempotency key -> the completion that was billed under it.
    times: idempotency key -> how often it was billed; above 1 only if `idempotent` is off.
    requests: that arrived.
    sent: what went wrong, by name; "" for nothing.
    bodies: hash of a request -> keys that it came under.
    under_way: requests at this moment, and the most there were.
  """

  def __init__(
    self,
    faults: float = 0.0,
    kinds: tuple[str, ...] = UNPAID + PAID,
    bad_answers: float = 0.0,
    idempotent: bool = True,
    seed: int = 0,
  ):
    """`faults` and `bad_answers` are shares of requests and of answers."""
    self._faults, self._kinds, self._bad, self._seed = faults, kinds, bad_answers, seed
    self._idempotent = idempotent
    self._visits: collections.Counter[str] = collections.Counter()
    self.bills: dict[str, dict[str, Any]] = {}
    self.times: collections.Counter[str] = collections.Counter()
    self.bodies: dict[str, set[str]] = collections.defaultdict(set)
    self.sent: collections.Counter[str] = collections.Counter()
    self.reply = reply  # what a model would say to a request under a key
    self.script: list[Any] = []  # responses for the next requests, before any chance
    self.requests, self.under_way = 0, [0, 0]
    self.delay, self.drip = 0.0, 0.05  # seconds before an answer, and between bytes of a slow one
    self.headers: list[dict[str, str]] = []
    self.received: list[dict[str, Any]] = []

  async def start(self, port: int = 0) -> str:
    """Listens; gives the base_url."""
    self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 26)
    return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

  async def stop(self) -> None:
    """Hears no more."""
    self._server.close()

  def summary(self) -> dict[str, Any]:
    """What was counted, as JSON values."""
    usage = [bill["usage"] for name, bill in self.bills.items() for _ in range(self.times[name])]
    return {
      "requests": self.requests,
      "billed": sum(self.times.values()),
      "billed_twice": sum(n > 1 for n in self.times.values()),
      "prompt_tokens": sum(u["prompt_tokens"] for u in usage),
      "completion_tokens": sum(u["completion_tokens"] for u in usage),
      "sent": dict(self.sent),
      "most_under_way": self.under_way[1],
    }

  async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
      while await self._one(reader, writer):
        pass
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
      pass
    finally:
      writer.close()

  async def _one(self, reader, writer) -> bool:
    """One request; whether the connection stays."""
    line = await reader.readline()
    if not line:
      return False
    headers = {}
    while (field := await reader.readline()) not in (b"\r\n", b""):
      name, _, value = field.decode().partition(":")
      headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    if line.startswith(b"GET /bills"):
      _respond(writer, 200, self.summary() | {"times": self.times})
      return True
    self.requests += 1
    self.under_way[0] += 1
    self.under_way[1] = max(self.under_way)
    try:
      return await self._answer(writer, headers, body)
    finally:
      self.under_way[0] -= 1

  async def _answer(self, writer, headers: dict[str, str], body: bytes) -> bool:
    self.headers.append(headers)
    name = headers.get("idempotency-key") or f"request {self.requests}"
    self._visits[name] += 1
    draw = random.Random(f"{self._seed} {name} {self._visits[name]}")
    fault = draw.choice(self._kinds) if draw.random() < self._faults else ""
    scripted = self.script.pop(0) if self.script else None
    if isinstance(scripted, str):
      fault = scripted
    self.sent[fault] += 1
    await asyncio.sleep(self.delay)
    if isinstance(scripted, tuple):  # status, body, headers
      _respond(writer, *scripted)
      return True
    if fault in UNPAID:
      return _unpaid(writer, fault)
    request = json.loads(body)
    self.received.append(request)
    completion = self._bill(name, request, body, fault if fault in ANSWERS else "")
    data = json.dumps(completion).encode()
    if fault == "reset_after":
      writer.transport.abort()
      return False
    if fault == "truncated":
      _respond(writer, 200, data[: len(data) // 2])
    elif fault == "bad_gateway":
      _respond(writer, 502, {"error": {"message": "upstream gone"}})
    elif fault == "slow":
      await _drip(writer, data, self.drip)
    else:
      _respond(writer, 200, data)
    return True

  def _bill(self, name: str, request: dict[str, Any], body: bytes, bad: str) -> dict[str, Any]:
    if self._idempotent and name in self.bills:
      return self.bills[name]
    draw = random.Random(f"answer {self._seed} {name}")
    if not bad and draw.random() < self._bad:
      bad = draw.choice(ANSWERS)
    self.times[name] += 1
    self.bodies[hashlib.sha256(body).hexdigest()].add(name)
    self.bills[name] = completion(request, name, self.reply(request, name), bad)
    return self.bills[name]


@contextlib.contextmanager
def in_thread(endpoint: FakeEndpoint):
  """The endpoint in a thread of this process; gives its address."""
  loop = asyncio.new_event_loop()
  thread = threading.Thread(target=loop.run_forever)
  thread.start()
  try:
    yield asyncio.run_coroutine_threadsafe(endpoint.start(), loop).result(10)
  finally:
    asyncio.run_coroutine_threadsafe(endpoint.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@contextlib.contextmanager
def in_process(*script: str):
  """A Python script that prints its address and serves, in a process of its own; the address."""
  with subprocess.Popen([sys.executable, *script], stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout
    try:
      yield process.stdout.readline().strip()
    finally:
      process.kill()


def bills(url: str) -> dict[str, Any]:
  """What the endpoint at an address has billed."""
  with urllib.request.urlopen(url.removesuffix("/v1") + "/bills") as response:
    return json.load(response)


def mark(request: dict[str, Any]) -> str:
  """A word that only this text with these pictures gets."""
  content = json.dumps(request["messages"][-1]["content"], sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()[:12]


def asked(request: dict[str, Any]) -> str:
  """The text of the user's turn."""
  parts = request["messages"][-1]["content"]
  return " ".join(part["text"] for part in parts if part["type"] == "text")


def reply(request: dict[str, Any], _: str) -> str:
  """What a model would say; a rater's score follows from the mark."""
  text, word = asked(request), mark(request)
  if "Rate from 1" not in text:
    return f"The face is seen from the front in even light, and bears the mark {word}."
  names = re.findall(r'"(\w+)": n', text)
  score = 4 + int(word, 16) % 7
  return json.dumps({**dict.fromkeys(names, score), "reason": f"mark {word}"})


def completion(request: dict[str, Any], name: str, answer: str, bad: str = "") -> dict[str, Any]:
  """The endpoint's response with an answer, or with a bad one instead."""
  text = asked(request)
  pictures = sum(part["type"] == "image_url" for part in request["messages"][-1]["content"])
  answer = {"refusal": _REFUSAL, "leak": _LEAK, "cut_off": answer[:20]}.get(bad, answer)
  read, written = len(text) // 4 + 85 * pictures, len(answer.split())
  return {
    "id": f"chatcmpl-{name}",
    "object": "chat.completion",
    "created": 0,
    "model": request["model"],
    "choices": [
      {
        "index": 0,
        "message": {"role": "assistant", "content": answer},
        "finish_reason": "length" if bad == "cut_off" else "stop",
      }
    ],
    "usage": {
      "prompt_tokens": read,
      "completion_tokens": written,
      "total_tokens": read + written,
    },
  }


def _unpaid(writer, fault: str) -> bool:
  if fault == "reset_before":
    writer.transport.abort()
    return False
  if fault == "rate_limit":
    _respond(writer, 429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
  else:
    _respond(writer, 500, {"error": {"message": "overloaded"}})
  return True


def _respond(writer, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
  data = body if isinstance(body, bytes) else json.dumps(body).encode()
  lines = {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}
  head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
  writer.write(f"HTTP/1.1 {status} x\r\n{head}\r\n".encode() + data)


async def _drip(writer, data: bytes, seconds: float) -> None:
  """A byte at a time: no single read is slow."""
  head = f"HTTP/1.1 200 x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
  writer.write(head.encode())
  for i in range(len(data)):
    writer.write(data[i : i + 1])
    await writer.drain()
    await asyncio.sleep(seconds)


async def _main(args: argparse.Namespace) -> None:
  endpoint = FakeEndpoint(
    args.faults,
    bad_answers=args.bad_answers,
    idempotent=not args.bills_every_request,
    seed=args.seed,
  )
  endpoint.delay = args.delay
  print(await endpoint.start(args.port), flush=True)
  await asyncio.Event().wait()


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--port", type=int, default=8791, help="0: any that is free")
  parser.add_argument("--faults", type=float, default=0.3, help="share of requests")
  parser.add_argument("--bad-answers", type=float, default=0.05, help="share of answers")
  parser.add_argument("--delay", type=float, default=0.0, help="seconds before an answer")
  parser.add_argument("--bills-every-request", action="store_true", help="ignores the key")
  parser.add_argument("--seed", type=int, default=0)
  asyncio.run(_main(parser.parse_args()))
