"""What comes back from a request, and what it means for the next one."""

import asyncio
import sys

import pytest
from fake_endpoint import FakeEndpoint

from facejax.annotate.endpoint import Endpoint, Fault, Service, retry_after

MESSAGES = [
  {"role": "system", "content": "Look."},
  {"role": "user", "content": [{"type": "text", "text": "What is to be seen?"}]},
]


def send(response=None, service=None, times=1, **endpoint):
  """The outcome of the last of some requests to an endpoint that answers with `response`."""
  server = FakeEndpoint(**endpoint)
  server.script = [response] * times if response is not None else []

  async def session():
    url = await server.start()
    # Short only where it is met: the machine may be busy.
    wait = 0.3 if response == "slow" else 10.0
    fields = {"model": "m", "base_url": url, "key_env": "", "price": (3.0, 12.0), "timeout": wait}
    async with Endpoint(Service(**{**fields, **(service or {})})) as client:
      try:
        for n in range(times):
          result = await client.send(MESSAGES, f"name-{n}", 0.75)
      except Fault as fault:
        result = fault
      send.excess = client.excess
    await server.stop()
    return result

  return asyncio.run(session()), server


def error(code=None, message="no"):
  return {"error": {"message": message, "code": code}}


@pytest.mark.parametrize(
  ("response", "cause", "retry", "paid", "stops"),
  [
    ((429, error()), "rate_limit", True, False, False),
    ((429, error("insufficient_quota")), "no_quota", False, False, True),
    ((500, error()), "http_500", True, False, False),
    ((503, b"<html>"), "http_503", True, False, False),
    ((502, error()), "http_502", True, True, False),
    ((504, error()), "http_504", True, True, False),
    ((408, error()), "http_408", True, True, False),
    ((409, error()), "http_409", True, False, False),
    ((400, error()), "http_400", False, False, False),
    ((422, error()), "http_422", False, False, False),
    ((413, error()), "http_413", False, False, False),
    ((400, error("content_filter")), "content_filter", False, False, False),
    ((401, error("invalid_api_key")), "http_401", False, False, True),
    ((403, error()), "http_403", False, False, True),
    ((404, error()), "http_404", False, False, True),
    ((200, error()), "bad_body", True, True, False),
    ((200, {"choices": []}), "bad_body", True, True, False),
    ((200, {"choices": [{"message": None}]}), "bad_body", True, True, False),
    ((200, {"choices": [{"message": {"content": [1]}}]}), "bad_body", True, True, False),
    ((200, b"[]"), "bad_body", True, True, False),
    ((200, b""), "bad_body", True, True, False),
    ("truncated", "bad_body", True, True, False),
    ("reset_before", "connection", True, True, False),
    ("reset_after", "connection", True, True, False),
    ("slow", "timeout", True, True, False),
  ],
)
def test_faults(response, cause, retry, paid, stops):
  """Kills: a final error sent again, a passing one given up; a request that may have been billed
  taken as free; one bad request that ends the run, or a wrong key that does not; a stream that
  never ends because every read of it is quick."""
  fault, _ = send(response)
  assert isinstance(fault, Fault), fault
  assert (fault.cause, fault.retry, fault.paid, fault.stops) == (cause, retry, paid, stops)


def test_a_refused_connection_was_not_paid():
  """Kills: money taken aside for requests that never left this machine."""

  async def session():
    async with Endpoint(Service("m", "http://127.0.0.1:9/v1", "")) as client:
      await client.send(MESSAGES, "name", 0.0)

  with pytest.raises(Fault, match="connection: ") as caught:
    asyncio.run(session())
  assert caught.value.retry and not caught.value.paid


def test_an_answer():
  """Kills: tokens read and written swapped, prices swapped or not per million; a request without
  the key, the limit or the temperature."""
  service = {"max_tokens": 33, "temperature": 0.5, "token_field": "max_completion_tokens"}
  answer, server = send(service=service)
  bill = server.bills["name-0"]
  usage = bill["usage"]
  assert usage["prompt_tokens"] != usage["completion_tokens"]
  assert answer.tokens == (usage["prompt_tokens"], usage["completion_tokens"])
  assert answer.cost == (answer.tokens[0] * 3 + answer.tokens[1] * 12) / 1e6
  assert answer.text == bill["choices"][0]["message"]["content"]
  assert (answer.id, answer.model, answer.finish) == (bill["id"], "m", "stop")
  assert answer.counted and answer.refusal == ""
  (request,) = server.received
  assert request["max_completion_tokens"] == 33 and "max_tokens" not in request
  assert request["temperature"] == 0.5 and request["messages"] == MESSAGES
  assert "temperature" not in send()[1].received[0]
  assert server.headers[0]["idempotency-key"] == "name-0"


def test_a_refusal_mark_and_missing_usage():
  """Kills: the refusal field dropped; an answer without usage that costs nothing."""
  message = {"role": "assistant", "content": None, "refusal": "I won't"}
  answer, _ = send((200, {"choices": [{"message": message, "finish_reason": "stop"}]}))
  assert (answer.text, answer.refusal) == ("", "I won't")
  assert (answer.tokens, answer.cost, answer.counted) == ((0, 0), 0.75, False)


def test_bounds_grow_where_they_were_wrong():
  """Kills: a cap that is exceeded again and again by an endpoint that counts more per picture."""
  usage = {"prompt_tokens": 500_000, "completion_tokens": 0}
  body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
  answer, _ = send((200, body), times=2)
  assert answer.cost == 1.5 and send.excess == 2.0
  send()
  assert send.excess == 1.0


def test_bound():
  """Kills: characters counted for bytes, pictures or the answer left out."""
  service = Service("m", price=(3.0, 12.0), max_tokens=50, image_tokens=1000)
  texts = ("é" * 100, "ab")  # 202 bytes, and 64 around each
  assert service.bound(texts, 2) == ((202 + 128 + 2000) * 3 + 50 * 12) / 1e6


@pytest.mark.parametrize(
  ("headers", "seconds"),
  [
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 37.0),
    ({"retry-after": "Sun, 06 Nov 1994 08:48:00 GMT"}, 0.0),
    ({"retry-after": "soon"}, 0.0),
    ({"retry-after": "-3"}, 0.0),
    ({}, 0.0),
  ],
)
def test_retry_after(headers, seconds):
  """Kills: milliseconds taken for seconds, a date not read, a negative wait."""
  assert retry_after(headers, now=784111740.0) == seconds


def test_a_missing_key_is_named(monkeypatch):
  """Kills: a request without a key; a message that does not say which variable."""
  monkeypatch.delenv("FACE_KEY", raising=False)
  with pytest.raises(ValueError, match="variable FACE_KEY is not set"):
    Endpoint(Service("m", key_env="FACE_KEY"))


def test_a_missing_client_is_named(monkeypatch):
  """Kills: a bare ImportError."""
  monkeypatch.setitem(sys.modules, "openai", None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[annotate\]'"):
    Endpoint(Service("m", key_env=""))


@pytest.mark.parametrize("url", ["localhost:8000/v1", "htp://host/v1", "http:///v1"])
def test_a_wrong_address_is_named(url):
  """Kills: hours of retries for a typing error."""
  with pytest.raises(ValueError, match=f"base_url '{url}' - expected"):
    Service("m", url)


def test_secrets_stay_out_of_messages_and_addresses(monkeypatch):
  """Kills: a key that an endpoint quotes, or one within the address, in a log or a report."""
  monkeypatch.setenv("FACE_KEY", "sk-very-secret")
  fault, server = send((401, error(message="bad key sk-very-secret")), {"key_env": "FACE_KEY"})
  assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
  assert "sk-very-secret" not in str(fault) and "bad key ***" in str(fault)
  service = Service("m", "https://user:pass@host:81/v1?api-key=secret")
  assert service.place() == "https://host:81/v1"
