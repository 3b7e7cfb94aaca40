"""Samples ending in a question -> answers, with a key/value cache.

Prompts of different lengths share a batch: rows are padded on the right, new tokens go to the same
slot in all of them, and the padding between is never seen. Two rows, L = 4, three new tokens:

  slot       0 1 2 3 | 4 5        the last token that is drawn is never read again
  row 0      a b c d | A B        positions 0 1 2 3 | 4 5
  row 1      e f . . | C D        positions 0 1 . . | 2 3

Everything from pixels to the last token is one compiled program; the host waits once a batch.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from facejax.config import RunConfig
from facejax.data import chat
from facejax.data.pipeline import row_format
from facejax.data.rows import RowFormat, collate, empty, encode
from facejax.knowledge.telling import NOTHING, Telling
from facejax.models.decoder import take_apart
from facejax.models.face_mllm import FaceMLLM
from facejax.models.layers import unroll
from facejax.sharding import batch_sharding, constrain, param_shardings
from facejax.types import Batch, Cache, Kind, Sample, Turn
from facejax.visual_table import VisualTable

# Prompts are padded to a multiple of this, so that questions of similar length share a program.
_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How the next token is chosen. The default takes the likeliest, the same on every run.

  Attributes:
    temperature: 0 is greedy, and then top_k and top_p have no effect; 1 is the model's own
      distribution. The released Face-LLaVA script uses 0.1.
    top_k: draws from the k likeliest tokens only; 0 is all.
    top_p: draws from the fewest tokens whose probability reaches this, after top_k; 1 is all.
    new_tokens: an answer is cut after so many.
    stop_ids: tokens that end an answer, besides the tokenizer's end of text and the template's
      end of an answer.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  new_tokens: int = 64
  stop_ids: tuple[int, ...] = ()

  def __post_init__(self):
    for name, fits, wanted in (
      ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
      ("top_k", self.top_k >= 0, "0 (off) or more"),
      ("top_p", 0 < self.top_p <= 1, "above 0, at most 1 (off)"),
      ("new_tokens", self.new_tokens >= 1, "at least 1"),
    ):
      if not fits:
        raise ValueError(f"Sampling.{name}={getattr(self, name)}: expected {wanted}")


class Answer(NamedTuple):
  """What the model said: text, its token ids without the stop token, and whether it stopped.

  An answer that did not stop was cut after Sampling.new_tokens.
  """

  text: str
  tokens: tuple[int, ...]
  stopped: bool


@flax.struct.dataclass
class SamplingState:
  """What the decode loop carries.

  Attributes:
    step: tokens drawn so far, which is also the column of `tokens` that is written next.
    tokens: drawn tokens; columns from `step` on are zeros. Every row holds a token in every column
      before `step`, also after it stopped; `lengths` says how many of them are its answer.
    lengths: answer tokens of each row, without the stop token.
    stopped: rows that drew a stop token, and rows of padding, which start stopped.
    positions: of the token drawn last, in its row: prompt length + step - 1.
    cache: keys and values of the prompt and of all drawn tokens but the last.
    rng: a key a row, never advanced: the draw of a step uses fold_in(rng, step).
  """

  step: Int[Array, ""]
  tokens: Int[Array, "B new"]
  lengths: Int[Array, " B"]
  stopped: Bool[Array, " B"]
  positions: Int[Array, " B"]
  cache: Cache
  rng: jax.Array


def restrict(logits: Float[Array, "B V"], top_k: int, top_p: float) -> Float[Array, "B V"]:
  """Sets the scores outside top_k and then top_p to -inf; among equals the lower id stays."""
  order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
  ranked = jnp.take_along_axis(logits, order, axis=-1)
  keep = jnp.ones(ranked.shape, bool)
  if top_k:
    keep &= (jnp.arange(ranked.shape[-1]) < top_k)[None]
  if top_p < 1:
    probabilities = jax.nn.softmax(jnp.where(keep, ranked, -jnp.inf))
    likelier = jnp.cumsum(probabilities, axis=-1) - probabilities
    keep &= likelier < top_p
    keep = keep.at[:, 0].set(True)  # whatever rounding does to a tiny top_p
  rank = jnp.argsort(order, axis=-1)
  return jnp.where(jnp.take_along_axis(keep, rank, axis=-1), logits, -jnp.inf)


def sample(logits: Float[Array, "B V"], rng: jax.Array, sampling: Sampling) -> Int[Array, " B"]:
  """Draws a token a row; rng holds a key a row, unused when greedy."""
  if sampling.temperature == 0:
    return jnp.argmax(logits, axis=-1)
  logits = logits.astype(jnp.float32) / sampling.temperature
  if sampling.top_k or sampling.top_p < 1:
    logits = restrict(logits, sampling.top_k, sampling.top_p)
  return jax.vmap(jax.random.categorical)(rng, logits)


@functools.partial(jax.jit, static_argnames=("model", "sampling"))
def generate(
  model: FaceMLLM, params: Any, batch: Batch, rng: jax.Array, sampling: Sampling
) -> tuple[Int[Array, "B new"], Int[Array, " B"], Bool[Array, " B"]]:
  """Prefill, then decode until every row has stopped or new_tokens are drawn.

  Args:
    model: what answers.
    params: its parameters.
    batch: rows of one prompt each, padded on the right; a row of padding gets no answer.
    rng: a key a row.
    sampling: stop_ids must be complete: no tokenizer is at hand here.

  Returns:
    Drawn tokens, answer length of each row, and whether it stopped.
  """
  layers = model.config.decoder.layers
  if unroll(layers) == layers:
    model = model.clone(apart=True)
    params = {**params, "decoder": take_apart(params["decoder"])}
  apply: Callable[..., Any] = functools.partial(model.apply, {"params": params})
  B, L = batch.tokens.shape
  logits, cache = apply(batch, L + sampling.new_tokens - 1, method="prefill")
  prompt = (batch.segment_ids > 0).sum(1)
  state = SamplingState(
    step=jnp.int32(0),
    tokens=jnp.zeros((B, sampling.new_tokens), jnp.int32),
    lengths=jnp.zeros(B, jnp.int32),
    stopped=prompt == 0,
    positions=prompt.astype(jnp.int32) - 1,
    cache=cache,
    rng=rng,
  )
  state = _draw(state, logits, sampling)

  def unfinished(state: SamplingState):
    return (state.step < sampling.new_tokens) & ~state.stopped.all()

  def body(state: SamplingState):
    last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, axis=1, keepdims=False)
    logits, cache = apply(last, state.positions, state.cache, method="extend")
    return _draw(dataclasses.replace(state, cache=cache), logits, sampling)

  state = jax.lax.while_loop(unfinished, body, state)
  replicate = lambda x: constrain(x, model.rules, *[None] * x.ndim)  # each host reads all answers
  return replicate(state.tokens), replicate(state.lengths), replicate(state.stopped)


@functools.partial(jax.jit, static_argnames=("model",))
def first_tokens(model: FaceMLLM, params: Any, batch: Batch) -> Float[Array, "B V"]:
  """Probabilities of the token behind each row's prompt; float32."""
  logits, _ = model.apply({"params": params}, batch, batch.tokens.shape[1], method="prefill")
  chances = jax.nn.softmax(logits.astype(jnp.float32))
  return constrain(chances, model.rules, None, None)


@functools.partial(jax.jit, static_argnames=("model", "kind"))
def slot_labels(
  model: FaceMLLM, params: Any, batch: Batch, slot: Int[Array, " B"], kind: Kind
) -> Float[Array, "B A"]:
  """Probabilities of the labels of one media slot a row; float32."""
  scores: Any = model.apply({"params": params}, batch, kind, method="label_scores")
  own = jnp.take_along_axis(scores, slot[:, None, None], axis=1)[:, 0]
  return constrain(own, model.rules, None, None)


def _draw(state: SamplingState, logits: jax.Array, sampling: Sampling) -> SamplingState:
  """One more token a row."""
  keys = jax.vmap(jax.random.fold_in, (0, None))(state.rng, state.step)
  token = sample(logits, keys, sampling).astype(jnp.int32)
  stop = jnp.isin(token, jnp.array(sampling.stop_ids, jnp.int32))
  stopped = state.stopped | stop
  return dataclasses.replace(
    state,
    step=state.step + 1,
    tokens=jax.lax.dynamic_update_index_in_dim(state.tokens, token, state.step, axis=1),
    lengths=state.lengths + ~stopped,
    stopped=stopped,
    positions=state.positions + 1,
  )


class Answerer:
  """Answers questions about faces. Compiles once for each shape of a batch and each Sampling."""

  def __init__(
    self, config: RunConfig, params: Any, mesh: Mesh | None = None, telling: Telling = NOTHING
  ):
    """Places the parameters.

    Args:
      config: the model; how rows are laid out, with data.modalities as what is read; and
        evaluate.rows, the most rows answered at a time.
      params: of config.model.
      mesh: rows and parameters are spread over it; None computes where the parameters are.
      telling: labels that are said in front of what answer() is asked; nothing by default.

    Raises ValueError if the tokenizer is not the model's, or lacks the template's tokens.
    """
    self._form = row_format(config.model, config.data)
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    self._model = FaceMLLM(config.model, platform=device.platform)
    self._rows = config.evaluate.rows
    self._mesh, self._telling = mesh, telling
    self._params = params
    self._multiple = 1  # rows of a batch divide over the devices
    if mesh is not None:
      self._params = jax.device_put(params, param_shardings(params, mesh))
      # A row on each device; one row alone cannot be split.
      axes = jax.tree.leaves(tuple(self._model.rules.spec("batch")))
      self._multiple = math.prod(mesh.shape[axis] for axis in axes)

  def answer(
    self,
    samples: Sequence[Sample],
    sampling: Sampling = Sampling(),
    seed: int = 0,
    progress: Callable[[int], object] = lambda rows: None,
  ) -> list[Answer]:
    """Answers each sample, whose last turn is its question.

    A draw depends on (seed, number of the sample in `samples`), not on how they are batched.

    Args:
      samples: any number.
      sampling: how tokens are chosen.
      seed: of the draws.
      progress: called with the number of rows of each batch that is done.

    Raises:
      ValueError: a prompt with its answer does not fit the model, naming the sample; or what
        data/rows.py refuses.
    """
    if not samples:
      return []
    labels = self._model.config.labels
    samples = self._telling.told(self, samples, labels.rules if labels else None)
    form = self._form_of(samples, sampling)
    stop = form.tokenizer.special_id(form.template.stop)
    stop_ids = tuple(sorted({form.tokenizer.eos_id, stop, *sampling.stop_ids}))
    sampling = dataclasses.replace(sampling, stop_ids=stop_ids)
    rows = self._batch_rows(len(samples))
    answers: list[Answer] = []
    pending = None
    for start in range(0, len(samples), rows):
      part = samples[start : start + rows]
      current = self._generate(part, start, rows, form, sampling, seed), len(part)
      if pending is not None:  # the device answers this batch while the last one is read
        answers += self._read(*pending, progress)
      pending = current
    assert pending is not None
    return answers + self._read(*pending, progress)

  def opening(self, text: str) -> int:
    """The token that an answer of this text begins with."""
    turns = (Turn("human", "?"), Turn("gpt", text))
    encoded = chat.encode(turns, self._form.tokenizer, self._form.template)
    return int(encoded.tokens[np.argmax(encoded.supervised)])

  def chances(self, samples: Sequence[Sample], tokens: Sequence[int]) -> Float[np.ndarray, "n k"]:
    """How likely it is that each sample's answer begins with each of the tokens."""

    def program(batch: Batch, start: int) -> jax.Array:
      return first_tokens(self._model, self._params, batch)

    return self._each(samples, program, np.asarray(tokens))

  def label_scores(self, samples: Sequence[Sample]) -> Float[np.ndarray, "n A"]:
    """What the model's label head says of each sample's one picture or clip.

    Raises ValueError for a model without a label head, or samples with several media or none, or of
    both kinds.
    """
    if self._model.config.labels is None:
      raise ValueError(
        "the model has no label head (model.labels is None) - expected one trained with "
        "model.labels, as configs/faceinsight_7b.py"
      )
    for sample in samples:
      if len(sample.media) != 1 or sample.media[0].kind != samples[0].media[0].kind:
        kinds = [medium.kind for medium in sample.media]
        raise ValueError(
          f"sample {sample.id!r} has the media {kinds} - expected one, of the others' kind"
        )
    # Of a picture in tiles the thumbnail, which comes last.
    slots = np.array([self._form.outline(s.media[0]).pictures - 1 for s in samples], np.int32)

    def program(batch: Batch, start: int) -> jax.Array:
      own = np.zeros(len(batch.tokens), np.int32)
      own[: len(slots) - start] = slots[start : start + len(own)]
      return slot_labels(self._model, self._params, batch, own, samples[0].media[0].kind)

    return self._each(samples, program, slice(None))

  def _each(
    self, samples: Sequence[Sample], program: Callable[[Batch, int], jax.Array], columns: Any
  ) -> np.ndarray:
    """Columns of a program's [B k] for all samples, batch by batch."""
    if not samples:
      return np.zeros((0, 0), np.float32)
    form = self._form_of(samples, Sampling(new_tokens=1))
    rows, found = self._batch_rows(len(samples)), []
    for start in range(0, len(samples), rows):
      part = samples[start : start + rows]
      with self._placed():
        made = program(self._batch(part, start, rows, form), start)
      found.append(np.asarray(made)[: len(part), columns])
    return np.concatenate(found)

  def _batch_rows(self, samples: int) -> int:
    return math.ceil(min(self._rows, samples) / self._multiple) * self._multiple

  def _placed(self):
    return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

  def _batch(self, part: Sequence[Sample], start: int, rows: int, form: RowFormat) -> Batch:
    """Rows of one prompt each, the last ones of padding."""
    encoded = [encode([s], [start + i], form, prompt=True) for i, s in enumerate(part)]
    batch = collate(encoded + [empty(form)] * (rows - len(part)))
    return batch if self._mesh is None else jax.device_put(batch, batch_sharding(self._mesh))

  def _form_of(self, samples: Sequence[Sample], sampling: Sampling) -> RowFormat:
    """The layout that holds the longest prompt, with the media slots that are needed."""
    config = self._model.config
    outlines = [[self._form.outline(medium) for medium in sample.media] for sample in samples]
    count = lambda kind: max(sum(m.pictures for m in o if m.kind == kind) for o in outlines)
    table = VisualTable(config, count("image"), count("video"))
    # Only the model bounds a prompt; the row length of training does not.
    form = dataclasses.replace(self._form, table=table, length=2**31 - 1)
    room = config.decoder.max_length - sampling.new_tokens + 1
    longest = 0
    for sample, outline in zip(samples, outlines, strict=True):
      length = len(form.text(sample.id, sample.conversation, outline, prompt=True))
      if length > room:
        raise ValueError(
          f"sample {sample.id!r}: the prompt takes {length} tokens and the answer up to "
          f"{sampling.new_tokens}, the model was made for {config.decoder.max_length} - shorten "
          "the prompt or ask for fewer new tokens"
        )
      longest = max(longest, length)
    length = min(math.ceil(longest / _MULTIPLE) * _MULTIPLE, room)
    return dataclasses.replace(form, length=length)

  def _generate(self, part, start: int, rows: int, form: RowFormat, sampling: Sampling, seed: int):
    """Starts one batch, whose last rows may be padding; returns before it is done."""
    batch = self._batch(part, start, rows, form)
    rng = jax.vmap(jax.random.fold_in, (None, 0))(
      jax.random.key(seed), jnp.arange(start, start + rows)
    )
    if self._mesh is not None:
      rng = jax.device_put(rng, batch_sharding(self._mesh))
    with self._placed():
      return generate(self._model, self._params, batch, rng, sampling)

  def _read(self, result, count: int, progress: Callable[[int], object]) -> list[Answer]:
    """Waits for a batch; the text of its first `count` rows."""
    tokens, lengths, stopped = (np.asarray(x)[:count] for x in result)
    progress(count)
    ids = [tuple(row[:n].tolist()) for row, n in zip(tokens, lengths, strict=True)]
    decode = self._form.tokenizer.decode
    return [Answer(decode(i).strip(), i, bool(s)) for i, s in zip(ids, stopped, strict=True)]
