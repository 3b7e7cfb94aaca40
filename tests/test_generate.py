"""Cached generation against slow loops, and what may not change an answer."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from facejax import generate as generate_module
from facejax.config import (
  DataConfig,
  EvaluateConfig,
  LabelsConfig,
  MeshConfig,
  OptimConfig,
  RunConfig,
  StageConfig,
)
from facejax.data.pipeline import load_tokenizer, row_format
from facejax.data.rows import Outline, collate, encode
from facejax.generate import Answerer, Sampling, generate, restrict, sample
from facejax.knowledge.handoff import Handoff
from facejax.knowledge.telling import Telling
from facejax.models import face_mllm, presets
from facejax.sharding import make_mesh
from facejax.types import Medium, Sample, Turn
from facejax.visual_table import VisualTable

QUESTIONS = (
  "<image>\nWhat emotion is shown?",
  "How old is the person in this picture? Look. <image>",
  "Is it real?",
  "<image>\nName the action units that you can see in the face, one after another.",
  "<image>\nWhy?",
)


def run_config(rows=3, max_length=192, row_length=40) -> RunConfig:
  model = presets.tiny()
  decoder = dataclasses.replace(
    model.decoder, vocab=load_tokenizer("demo").vocab_size, max_length=max_length
  )
  stage = StageConfig(trainable=(".*",), optim=OptimConfig(peak_lr=1e-3), steps=1, rows=1)
  return RunConfig(
    model=dataclasses.replace(model, decoder=decoder, remat="none"),
    data=DataConfig(row_length=row_length),
    stages={"one": stage},
    evaluate=EvaluateConfig(rows=rows),
  )


def make_samples(config: RunConfig, questions=QUESTIONS) -> list[Sample]:
  """Landmarks and map are there, or one of them, or none."""
  draw, size = np.random.default_rng(3), config.model.image.image_size
  samples = []
  for i, question in enumerate(questions):
    medium = Medium(
      "image",
      draw.integers(0, 256, (1, size, size, 3), np.uint8),
      draw.random((1, 68, 2)).astype(np.float32) if i % 2 else None,
      draw.integers(0, 7, (1, size, size), np.uint8) if i % 3 else None,
    )
    media = (medium,) if "<image>" in question else ()
    samples.append(Sample(f"s{i}", (Turn("human", question),), media))
  return samples


@pytest.fixture(scope="module")
def config():
  return run_config()


@pytest.fixture(scope="module")
def params(config):
  """Large weights, so that answers differ between prompts and tokens do not just repeat."""
  draw = np.random.default_rng(1)

  def leaf(path, x):
    mean = float(path[-1].key == "scale")
    return jnp.asarray(draw.normal(mean, 0.3, x.shape), x.dtype)

  return jax.tree_util.tree_map_with_path(leaf, face_mllm.init_shapes(config.model))


@functools.partial(jax.jit, static_argnames="model")
def forward(model, params, batch):
  return model.apply({"params": params}, batch)


def slow_greedy(config, params, one: Sample, new_tokens: int) -> list[int]:
  """Argmax of the full forward pass over the prompt and what was drawn, without padding."""
  form = dataclasses.replace(row_format(config.model, config.data), length=96 + new_tokens)
  row = encode([one], [0], form, prompt=True)
  real = int((row.segment_ids > 0).sum())
  drawn = []
  for i in range(new_tokens):
    logits = forward(face_mllm.FaceMLLM(config.model), params, collate([row]))
    drawn.append(int(logits[0, real + i - 1].argmax()))
    at = real + i
    row.tokens[at], row.positions[at], row.segment_ids[at] = drawn[-1], at, 1
  return drawn


@pytest.fixture(scope="module")
def greedy(config, params):
  """Six greedy tokens for each question, found without a cache."""
  return [slow_greedy(config, params, s, 6) for s in make_samples(config)]


def test_cached_greedy_equals_full_forward(config, params, greedy):
  """Kills: a position or slot off by one, padding that is seen, logits of the wrong row end."""
  answers = Answerer(config, params).answer(make_samples(config), Sampling(new_tokens=6))
  eos = load_tokenizer("demo").eos_id
  for answer, want in zip(answers, greedy, strict=True):
    cut = want[: want.index(eos)] if eos in want else want
    assert list(answer.tokens) == cut
    assert answer.stopped == (eos in want)
  assert len({tuple(g) for g in greedy}) == len(QUESTIONS), "prompts must matter for this test"


def test_stop_token_ends_an_answer_and_is_left_out(config, params, greedy):
  """Kills: the stop token kept in the text, stopping one row with another, a late stop."""
  stop = greedy[1][3]
  answers = Answerer(config, params).answer(
    make_samples(config), Sampling(new_tokens=6, stop_ids=(stop,))
  )
  tokenizer = load_tokenizer("demo")
  for answer, want in zip(answers, greedy, strict=True):
    ends = [i for i, t in enumerate(want) if t in (stop, tokenizer.eos_id)]
    cut = want[: ends[0]] if ends else want
    assert (list(answer.tokens), answer.stopped) == (cut, bool(ends))
    assert answer.text == tokenizer.decode(cut).strip()
  assert len(answers[1].tokens) == greedy[1].index(stop) < 6


def test_loop_ends_when_all_rows_stopped(config, params, greedy):
  """Kills: decoding to new_tokens whatever happens, and padding rows that never stop."""
  form = dataclasses.replace(row_format(config.model, config.data), length=96)
  rows = [encode([make_samples(config)[0]], [0], form, prompt=True)]
  empty_row = jax.tree.map(np.zeros_like, rows[0])
  batch = collate([*rows, empty_row])
  keys = jax.random.split(jax.random.key(0), 2)
  sampling = Sampling(new_tokens=50, stop_ids=(greedy[0][1],))
  model = face_mllm.FaceMLLM(config.model)
  tokens, lengths, stopped = generate(model, params, batch, keys, sampling)
  drawn = greedy[0].index(greedy[0][1]) + 1
  np.testing.assert_array_equal(tokens[0, :drawn], greedy[0][:drawn])
  assert not np.asarray(tokens[:, drawn:]).any()
  assert lengths.tolist() == [drawn - 1, 0] and stopped.tolist() == [True, True]


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_batch_split_does_not_change_draws(params, rows):
  """Kills: rng by row of the batch, rng by batch, padding rows that shift the numbering."""
  sampling = Sampling(temperature=1.0, top_k=40, top_p=0.95, new_tokens=5)
  answers = [
    Answerer(run_config(rows=r), params).answer(make_samples(run_config()), sampling, seed=7)
    for r in (3, rows)
  ]
  assert answers[0] == answers[1]


def test_seed_and_row_number_change_draws(config, params):
  """Kills: an ignored seed, one key for all rows, one key for all steps."""
  same = [make_samples(config)[2]] * 4
  sampling = Sampling(temperature=5.0, new_tokens=8)
  answerer = Answerer(config, params)
  first = answerer.answer(same, sampling, seed=1)
  assert len({a.tokens for a in first}) == 4
  assert len(set(first[0].tokens)) > 1
  assert first == answerer.answer(same, sampling, seed=1)
  assert first != answerer.answer(same, sampling, seed=2)


def test_mesh_changes_nothing(config, params):
  """Kills: rows lost or reordered by the layout, a batch that does not divide over devices."""
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=1), jax.devices()[:4])
  sampling = Sampling(new_tokens=4)
  plain = Answerer(config, params).answer(make_samples(config), sampling)
  assert Answerer(config, params, mesh).answer(make_samples(config), sampling) == plain


def test_one_program_for_all_batches(params):
  """Kills: compiling again for the last, shorter batch or for a second Answerer."""
  config = run_config(rows=2)
  sampling = Sampling(new_tokens=3)
  Answerer(config, params).answer(make_samples(config), sampling)
  before = generate._cache_size()
  done = []
  Answerer(config, params).answer(make_samples(config), sampling, progress=done.append)
  assert generate._cache_size() == before
  assert done == [2, 2, 1]


def reference_support(logits, top_k, top_p):
  """Ids that may be drawn, by loops: the k likeliest, then the fewest that reach top_p."""
  ids = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
  ids = ids[:top_k] if top_k else ids
  weights = [np.exp(logits[i] - logits[ids[0]]) for i in ids]
  total, reached, kept = sum(weights), 0.0, set()
  for i, weight in zip(ids, weights, strict=True):
    kept.add(i)
    reached += weight / total
    if reached >= top_p:
      break
  return kept


@pytest.mark.parametrize(
  "top_k, top_p", [(1, 1.0), (4, 1.0), (0, 0.5), (0, 0.93), (6, 0.7), (50, 1.0), (0, 1e-9)]
)
def test_restrict_support_against_loops(top_k, top_p):
  """Kills: top_p before top_k, probabilities not renormalised, one token too few or too many."""
  logits = np.random.default_rng(5).normal(0, 2, (7, 23)).astype(np.float32)
  got = np.asarray(restrict(jnp.asarray(logits), top_k, top_p))
  for row, original in zip(got, logits, strict=True):
    kept = reference_support(original.astype(np.float64), top_k, top_p)
    assert set(np.flatnonzero(np.isfinite(row)).tolist()) == kept
    assert all(row[i] == original[i] for i in kept)


def test_restrict_breaks_ties_by_id():
  """Kills: a threshold instead of a rank, which keeps all of equal scores."""
  got = restrict(jnp.array([[1.0, 3.0, 3.0, 3.0]]), 2, 1.0)
  assert np.isfinite(got)[0].tolist() == [False, True, True, False]


def test_sample_follows_the_tempered_distribution():
  """Kills: multiplying by the temperature, drawing from unrestricted scores, a shared key."""
  logits, n = np.array([1.0, 0.0, -1.0, 2.0], np.float32), 20_000
  keys = jax.random.split(jax.random.key(0), n)
  drawn = sample(jnp.tile(logits, (n, 1)), keys, Sampling(temperature=2.0, top_k=3))
  weights = np.exp(logits / 2) * np.array([1, 1, 0, 1])
  want = weights / weights.sum()
  # Three standard deviations of a share are below 0.011.
  np.testing.assert_allclose(np.bincount(drawn, minlength=4) / n, want, atol=0.011)
  assert int(np.bincount(drawn, minlength=4)[2]) == 0


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("temperature", -0.5, r"Sampling.temperature=-0.5: expected 0 \(greedy\) or more"),
    ("temperature", float("nan"), r"Sampling.temperature=nan"),
    ("top_k", -1, r"Sampling.top_k=-1: expected 0 \(off\) or more"),
    ("top_p", 0.0, r"Sampling.top_p=0.0: expected above 0"),
    ("top_p", 1.5, r"Sampling.top_p=1.5"),
    ("new_tokens", 0, r"Sampling.new_tokens=0: expected at least 1"),
  ],
)
def test_impossible_sampling_is_refused(field, value, message):
  """Kills: a dropped check, a message that names another field."""
  with pytest.raises(ValueError, match=message):
    Sampling(**{field: value})


def test_prompt_too_long_is_refused(config, params):
  """Kills: cutting the prompt, overwriting cache slots; the message names sample and numbers."""
  samples = make_samples(config, ("Is it?", "<image>\n" + "why " * 150))
  form = dataclasses.replace(row_format(config.model, config.data), length=10_000)
  length = len(
    form.text("s1", samples[1].conversation, [Outline("image", mapped=True)], prompt=True)
  )
  with pytest.raises(
    ValueError,
    match=f"'s1': the prompt takes {length} tokens .* up to 16, the model was made for 192",
  ):
    Answerer(config, params).answer(samples, Sampling(new_tokens=16))


def test_longest_possible_prompt_is_answered(params):
  """Kills: refusing a prompt that just fits; the last token drawn needs no slot."""
  config = run_config()
  form = dataclasses.replace(row_format(config.model, config.data), length=10_000)
  sample_ = make_samples(config)[0]
  length = len(form.text("s0", sample_.conversation, [Outline("image")], prompt=True))
  fits = run_config(max_length=length + 3)
  assert len(Answerer(fits, params).answer([sample_], Sampling(new_tokens=4))) == 1
  with pytest.raises(ValueError, match=f"takes {length} tokens and the answer up to 5"):
    Answerer(fits, params).answer([sample_], Sampling(new_tokens=5))


def test_no_samples_no_answers(config, params):
  """Kills: a batch made of nothing."""
  assert Answerer(config, params).answer([]) == []


def _qwen_folder(path):
  """A byte-level tokenizer without merges, with InternVL's special tokens behind 256 bytes."""
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  (path / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(alphabet)}))
  (path / "merges.txt").write_text("#version: 0.2\n")
  names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>")
  added = {name: 256 + i for i, name in enumerate(names)}
  (path / "added_tokens.json").write_text(json.dumps(added))
  (path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
  return str(path)


def test_template_and_tiles_reach_the_model(monkeypatch, tmp_path):
  """Kills: Vicuna's turns or `</s>` for every model; a picture cut in training but not here."""
  config = run_config(max_length=2048)
  size = config.model.image.image_size
  data = dataclasses.replace(
    config.data,
    tokenizer=_qwen_folder(tmp_path),
    template="internvl",
    resize="stretch",
    max_tiles=6,
    modalities=(),
  )
  seen = []

  def stub(model, params, batch, rng, sampling):
    seen.append((batch, sampling))
    tokens = np.tile(load_tokenizer(data.tokenizer).encode(" Yes."), (len(rng), 1))
    return tokens, np.array([5, 4]), np.array([True, False])

  monkeypatch.setattr(generate_module, "generate", stub)
  wide = Medium("image", np.full((1, 2 * size, 3 * size, 3), 9, np.uint8))
  square = Medium("image", np.zeros((1, size, size, 3), np.uint8))
  turn = Turn("human", "<image>\n<image>\nSame?")
  asked = [Sample("a", (turn,), (wide, square)), Sample("b", (turn,), (square, square))]
  answers = Answerer(dataclasses.replace(config, data=data), {}).answer(asked, Sampling(4))
  ((batch, sampling),) = seen
  assert sampling.stop_ids == (256, 258)
  assert batch.images.pixels.shape[:2] == (2, 8)
  tokens, count = batch.tokens[0], VisualTable(config.model, 1, 0).pixel_tokens("image")
  assert [(tokens == i).sum() for i in (257, 258, 259, 260)] == [2, 1, 2, 2]
  assert (batch.visual_index[0] >= 0).sum() == 8 * count
  assert (batch.visual_index[1] >= 0).sum() == 2 * count
  assert [(answer.text, answer.stopped) for answer in answers] == [("Yes.", True), ("Yes", False)]


def with_head(config: RunConfig) -> RunConfig:
  labels = LabelsConfig("age_gender_race", depth=0)
  return dataclasses.replace(config, model=dataclasses.replace(config.model, labels=labels))


def test_first_tokens_equal_the_full_forward(config, params):
  """Kills: chances behind padding instead of behind the prompt; columns of other tokens; the last
  batch's padding counted as samples."""
  samples = make_samples(config)
  answerer = Answerer(config, params)
  yes, no = answerer.opening("Yes."), answerer.opening("No.")
  tokenizer = load_tokenizer("demo")
  assert [yes, no] == [tokenizer.encode(text)[0] for text in ("Yes.", "No.")] and yes != no
  got = answerer.chances(samples, [no, yes])
  form = dataclasses.replace(row_format(config.model, config.data), length=96)
  for one, chances in zip(samples, got, strict=True):
    row = encode([one], [0], form, prompt=True)
    logits = forward(face_mllm.FaceMLLM(config.model), params, collate([row]))
    want = jax.nn.softmax(logits[0, int((row.segment_ids > 0).sum()) - 1])
    np.testing.assert_allclose(chances, want[jnp.array([no, yes])], rtol=2e-4)
  assert len(answerer.chances([], [yes])) == 0


def test_labels_are_told_only_if_wanted(config, params, monkeypatch):
  """Kills: labels handed over unasked; a hand-off that no prompt holds; a head's name lost."""
  seen = []
  told = lambda self, answerer, samples, head: seen.append((self, head)) or samples[:1]
  monkeypatch.setattr(Telling, "told", told)
  want = Telling(Handoff(order="table"))
  monkeypatch.setattr(Answerer, "_generate", lambda self, part, *rest: part)
  monkeypatch.setattr(Answerer, "_read", lambda self, part, count, progress: [s.id for s in part])
  samples = make_samples(config)
  assert Answerer(with_head(config), params, telling=want).answer(samples) == ["s0"]
  Answerer(config, params).answer(samples)
  assert seen == [(want, "age_gender_race"), (Telling(), None)]


def test_label_scores_are_the_heads(config, params):
  """Kills: scores of another sample; a model without a head that answers; two pictures as one."""
  own = with_head(config)
  head = face_mllm.init(own.model, jax.random.key(2))["labels"]
  answerer = Answerer(own, {**params, "labels": head})
  samples = [s for s in make_samples(config) if s.media]
  got = answerer.label_scores(samples)
  form = dataclasses.replace(row_format(own.model, own.data), length=96)
  every = {"params": {**params, "labels": head}}
  apply = functools.partial(face_mllm.FaceMLLM(own.model).apply, method="label_scores")
  slow = jax.jit(lambda batch: apply(every, batch))
  for one, scores in zip(samples, got, strict=True):
    want = slow(collate([encode([one], [0], form, prompt=True)]))[0, 0]
    np.testing.assert_allclose(scores, want, atol=1e-5)
  assert len(np.unique(got[:, 0])) == len(samples) > 3
  with pytest.raises(ValueError, match=r"the model has no label head \(model.labels is None\)"):
    Answerer(config, params).label_scores(samples)
  with pytest.raises(ValueError, match=r"sample 's2' has the media \[\] - expected one"):
    answerer.label_scores(make_samples(config))
