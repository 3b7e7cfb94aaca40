"""One request to an OpenAI-compatible endpoint -> an Answer, or a Fault that says what to do.

The client's own retries are off: each of them would be a request that no journal and no budget
knows of.
"""

import asyncio
import dataclasses
import email.utils
import os
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any, Literal, cast

from facejax.annotate.unit import Answer

# Bytes a message takes beyond its text: role, separators, the template around it.
_FRAMING = 64


@dataclasses.dataclass(frozen=True)
class Service:
  """A model behind an endpoint, how it is asked, and what that costs.

  Attributes:
    model: its name there.
    base_url: of the API, up to /v1.
    key_env: environment variable that holds the API key; "" for an endpoint without one.
    price: of a million tokens, (read, written).
    max_tokens: of an answer. The released FairFaceGPT code sets none; a budget needs one.
    token_field: how the endpoint calls that limit.
    temperature: None leaves it to the endpoint, as the released code does.
    detail: of pictures: "low", "high", "auto"; "" leaves it to the endpoint.
    image_tokens: the most tokens that a picture is taken to cost, for the budget. 1,445 is what
      OpenAI's tiles come to at most for gpt-4o in high detail (85 + 8 x 170).
    timeout: seconds from sending a request to the last byte of its answer.
  """

  model: str
  base_url: str = "https://api.openai.com/v1"
  key_env: str = "OPENAI_API_KEY"
  price: tuple[float, float] = (0.0, 0.0)
  max_tokens: int = 1024
  token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
  temperature: float | None = None
  detail: str = ""
  image_tokens: int = 1445
  timeout: float = 120.0

  def __post_init__(self):
    parts = urllib.parse.urlsplit(self.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
      raise ValueError(
        f"base_url {self.base_url!r} - expected an address such as http://localhost:8000/v1 - "
        "check --base-url"
      )

  def settings(self) -> dict[str, Any]:
    """What an answer depends on: part of its content hash. Prices and timeouts are not."""
    names = ("model", "max_tokens", "temperature", "detail")
    return {name: getattr(self, name) for name in names}

  def bound(self, texts: Sequence[str], pictures: int) -> float:
    """The most that a request costs: a token is at least one byte of text."""
    read = sum(len(text.encode()) + _FRAMING for text in texts) + pictures * self.image_tokens
    return self.cost(read, self.max_tokens)

  def cost(self, read: int, written: int) -> float:
    """Of tokens, in the currency of the prices. Discounts for cached tokens are not known here."""
    return (read * self.price[0] + written * self.price[1]) / 1e6

  def place(self) -> str:
    """The address without anything that could be a secret."""
    parts = urllib.parse.urlsplit(self.base_url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


class Fault(Exception):
  """A request without a usable answer.

  Attributes:
    cause: a short name, counted in the report.
    retry: the same request may succeed later.
    paid: it may have been billed all the same.
    wait: seconds that the endpoint asks to wait.
    stops: no other request can succeed either.
  """

  def __init__(self, cause: str, message: str, **flags: Any):
    super().__init__(f"{cause}: {message}")
    self.cause = cause
    self.retry: bool = flags.get("retry", False)
    self.paid: bool = flags.get("paid", False)
    self.wait: float = flags.get("wait", 0.0)
    self.stops: bool = flags.get("stops", False)


class Endpoint:
  """A client of one service. Use as `async with`.

  Attributes:
    excess: factor by which an answer ever cost more than the service's bound, 1 at least: an
      endpoint may count more tokens a picture, or ignore the limit.
  """

  def __init__(self, service: Service, idempotency_header: str = "Idempotency-Key"):
    """Reads the key. Raises ModuleNotFoundError without openai, ValueError without the key."""
    try:
      import openai
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        "asking an endpoint needs the openai client, which is not installed - "
        "pip install -e '.[annotate]'"
      ) from error
    self.service = service
    self._header = idempotency_header
    self._secret = os.environ.get(service.key_env, "") if service.key_env else ""
    if service.key_env and not self._secret:
      raise ValueError(
        f"the environment variable {service.key_env} is not set - expected the API key of "
        f"{service.place()} in it - export it, or give --key-env= for an endpoint without a key"
      )
    self._openai = openai
    self.excess = 1.0
    self._client = openai.AsyncOpenAI(
      api_key=self._secret or "none",
      base_url=service.base_url,
      max_retries=0,
      timeout=service.timeout,
    )

  async def __aenter__(self) -> "Endpoint":
    return self

  async def __aexit__(self, *_) -> None:
    await self._client.close()

  async def send(self, messages: list[dict[str, Any]], name: str, bound: float) -> Answer:
    """Asks once. Raises Fault.

    Args:
      messages: system and user turn.
      name: the idempotency key.
      bound: what the service says of these messages; the cost if the endpoint counts nothing.
    """
    options: dict[str, Any] = {self.service.token_field: self.service.max_tokens}
    if self.service.temperature is not None:
      options["temperature"] = self.service.temperature
    headers = {self._header: name} if self._header else {}
    request = self._client.chat.completions.create(
      model=self.service.model, messages=cast(Any, messages), extra_headers=headers, **options
    )
    try:
      # The client's own timeout is for each read: a slow stream would never meet it.
      completion = await asyncio.wait_for(request, self.service.timeout)
    except TimeoutError as error:
      raise Fault(
        "timeout", f"no whole answer in {self.service.timeout:g} s", retry=True, paid=True
      ) from error
    except (self._openai.OpenAIError, ValueError, UnicodeError) as error:
      raise self._fault(error) from error
    return self._answer(completion, bound)

  def _answer(self, completion: Any, bound: float) -> Answer:
    """What the response says, none of which the client has checked."""
    try:
      choice = completion.choices[0]
      text, refusal = choice.message.content or "", getattr(choice.message, "refusal", None) or ""
      if not isinstance(text, str) or not isinstance(refusal, str):
        raise TypeError(f"content of type {type(text).__name__}")
    except (AttributeError, IndexError, TypeError) as error:
      raise Fault("bad_body", f"no message in it ({error})", retry=True, paid=True) from error
    tokens = _usage(completion)
    cost = bound * self.excess if tokens is None else self.service.cost(*tokens)
    if bound > 0:
      self.excess = max(self.excess, cost / bound)
    return Answer(
      text=text.strip(),
      finish=str(choice.finish_reason or ""),
      refusal=refusal,
      id=str(getattr(completion, "id", None) or ""),
      model=str(getattr(completion, "model", None) or ""),
      tokens=tokens or (0, 0),
      cost=cost,
      counted=tokens is not None,
    )

  def _fault(self, error: Exception) -> Fault:
    """By what the client raised."""
    message = self._clean(str(error))
    if isinstance(error, self._openai.APITimeoutError):
      return Fault("timeout", message, retry=True, paid=True)
    if isinstance(error, self._openai.APIConnectionError):
      # Nothing was sent where no connection came about.
      sent = type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout")
      return Fault("connection", message, retry=True, paid=sent)
    if isinstance(error, self._openai.APIStatusError):
      return _by_status(error.status_code, message, error.code, error.response.headers)
    return Fault("bad_body", message, retry=True, paid=True)

  def _clean(self, message: str) -> str:
    """Without the key: endpoints quote it when they refuse it. Short enough for a table."""
    message = message.replace(self._secret, "***") if self._secret else message
    return " ".join(message.split())[:300]


def _usage(completion: Any) -> tuple[int, int] | None:
  """Tokens read and written; None where the endpoint does not say."""
  usage = getattr(completion, "usage", None)
  read, written = (getattr(usage, f"{kind}_tokens", None) for kind in ("prompt", "completion"))
  return (read, written) if isinstance(read, int) and isinstance(written, int) else None


def _by_status(status: int, message: str, code: Any, headers: Any) -> Fault:
  """What an HTTP status means for this request and for the others."""
  if status == 429 and code == "insufficient_quota":
    return Fault("no_quota", message, stops=True)
  if status == 429:
    return Fault("rate_limit", message, retry=True, wait=retry_after(headers))
  if status in (401, 403, 404):
    return Fault(f"http_{status}", message, stops=True)
  if status in (408, 409, 425) or status >= 500:
    # Behind a gateway that gave up (408, 502, 504, 52x) the model may have answered, and billed.
    paid = status not in (409, 425, 500, 503)
    return Fault(f"http_{status}", message, retry=True, paid=paid, wait=retry_after(headers))
  if code in ("content_filter", "content_policy_violation"):
    return Fault("content_filter", message)
  return Fault(f"http_{status}", message)


def retry_after(headers: Any, now: float | None = None) -> float:
  """Seconds that an endpoint asks to wait: Retry-After-Ms, or seconds or a date; 0 for none."""
  for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
    value = headers.get(name)
    if value is None:
      continue
    try:
      return max(0.0, float(value) * unit)
    except ValueError:
      pass
    try:
      date = email.utils.parsedate_to_datetime(value)
    except ValueError:
      continue
    return max(0.0, date.timestamp() - (time.time() if now is None else now))
  return 0.0
