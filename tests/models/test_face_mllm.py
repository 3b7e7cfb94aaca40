"""The whole model against a loop; what must not matter; what must."""

import dataclasses

import jax
import jax.numpy as jnp
import model_reference as reference
import numpy as np
import pytest

from facejax.config import FusionConfig, MeshConfig, SegmentationConfig, VitConfig
from facejax.fake import fake_batch
from facejax.models import presets
from facejax.models.face_mllm import FaceMLLM, init, init_shapes, splice
from facejax.sharding import batch_sharding, make_mesh, param_shardings
from facejax.visual_table import VisualTable

TINY = presets.tiny()
ADD = dataclasses.replace(
  TINY,
  video=None,
  fusion=FusionConfig(form="paper", heads=3),
  segmentation=SegmentationConfig(mode="add", size=12, grid=3, width=22, classes=7),
)
INTERN = dataclasses.replace(
  ADD,
  image=dataclasses.replace(
    TINY.image, image_size=16, layout="intern", select_layer=-1, statistics="imagenet"
  ),
  projector="pixel_shuffle",
  segmentation=SegmentationConfig(mode="add", size=14, grid=2, width=22, classes=7),
  decoder=dataclasses.replace(TINY.decoder, qkv_bias=True),
)
# Maps through a ViT: their own, and the picture's with the picture's projector.
OWN_VIT = dataclasses.replace(
  TINY,
  segmentation=SegmentationConfig(
    mode="concat",
    size=15,
    grid=3,
    width=22,
    form="vit",
    vit=VitConfig(image_size=15, patch=5, width=18, layers=2, heads=3, mlp=26, tokens="all"),
  ),
)
IMAGE_VIT = dataclasses.replace(
  TINY,
  segmentation=SegmentationConfig(
    mode="concat", size=12, grid=3, width=22, form="image", projector="image"
  ),
)


def apply(config, params, batch):
  return jax.jit(FaceMLLM(config).apply)({"params": params}, batch)


@pytest.mark.parametrize(
  "config", [TINY, ADD, INTERN, OWN_VIT, IMAGE_VIT], ids=["concat", "add", "intern", "vit", "image"]
)
def test_equals_a_loop(config, randomise):
  # Kills: tokens spliced at another place or order, a frame's landmarks or map at another frame,
  # clips through the picture encoder (or not, without one of their own); cells of four patches in
  # another order than the map's and the mask's; maps in other colours, through another ViT or
  # projector, with a class token.
  batch = fake_batch(config, rows=2, row_length=70, images=2, videos=1, seed=1)
  params = randomise(init_shapes(config))
  want = reference.face_mllm(params, config, batch)
  real = np.asarray(batch.segment_ids) > 0
  np.testing.assert_allclose(apply(config, params, batch)[real], want[real], atol=2e-4)


def test_splice():
  # Kills: an index one off, rows mixed, index 0 read as text.
  text, visual = jnp.arange(8.0).reshape(2, 4, 1), 10 * jnp.arange(1.0, 7).reshape(2, 3, 1)
  got = splice(text, visual, jnp.array([[-1, 0, 2, -1], [1, -1, -1, 0]]))
  np.testing.assert_array_equal(got[..., 0], [[0, 10, 30, 3], [50, 5, 6, 40]])


@pytest.mark.parametrize("config", [TINY, ADD], ids=["concat", "add"])
def test_absent_modalities_are_those_of_a_model_without_them(config, randomise):
  # Kills: absent landmarks or maps that still add something, also where they hold NaN.
  batch = fake_batch(config, rows=2, row_length=70, images=1, videos=1)
  params = randomise(init_shapes(config))
  hide = lambda m: m.replace(
    landmarks=m.landmarks * jnp.nan,
    landmarks_valid=jnp.zeros_like(m.landmarks_valid),
    segmentation_valid=jnp.zeros_like(m.segmentation_valid),
  )
  hidden = batch.replace(images=hide(batch.images), videos=hide(batch.videos))
  bare = dataclasses.replace(config, fusion=None, segmentation=SegmentationConfig())
  embed = lambda c, b: jax.jit(
    lambda b: FaceMLLM(c).apply({"params": params}, b, method="embed")[0]
  )(b)
  table = VisualTable(bare, 1, 1).size
  pixels_only = batch.visual_index < table
  got, want = (jnp.where(pixels_only[..., None], embed(c, hidden), 0) for c in (config, bare))
  np.testing.assert_array_equal(got, want)
  assert (embed(config, batch) != embed(bare, batch)).any()
  loss = lambda p: jnp.sum(FaceMLLM(config).apply({"params": p}, hidden, method="embed")[0] ** 2)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


def test_segments_of_a_row_never_see_each_other(randomise):
  # Kills: visual tokens that reach another segment or row, e.g. through a table shared by mistake.
  batch = fake_batch(TINY, rows=2, row_length=60, seed=3)
  params = randomise(init_shapes(TINY))
  ends = [int((batch.segment_ids[b] == 1).sum()) for b in range(2)]
  assert all((batch.segment_ids[b] == 2).any() for b in range(2))
  run = lambda batch: apply(TINY, params, batch)
  want = run(batch)
  pixels = batch.images.pixels.at[0].set(255 - batch.images.pixels[0])
  got = run(batch.replace(images=batch.images.replace(pixels=pixels)))
  np.testing.assert_array_equal(got[1], want[1])
  np.testing.assert_array_equal(got[0, ends[0] :], want[0, ends[0] :])
  np.testing.assert_array_equal(got[0, 0], want[0, 0])
  assert (got[0, 1 : ends[0]] != want[0, 1 : ends[0]]).any(-1).all()


def test_cached_decoding_equals_reading_it_all(randomise):
  # Kills: a slot or position one off, the hidden padding between prompt and answer seen, a row's
  # last token taken from its last slot. Prompts of different lengths.
  config, new, length = TINY, 4, 40
  batch = fake_batch(config, rows=3, row_length=length, seed=5)
  lengths = (batch.segment_ids == 1).sum(1)
  assert len(set(lengths.tolist())) > 1 and (batch.segment_ids == 1).sum(1).max() + new <= length
  params = {"params": randomise(init_shapes(config))}
  answer = jnp.asarray(np.random.default_rng(0).integers(1, 60, (3, new)), jnp.int32)
  at = jnp.arange(length)[None]
  full = batch.replace(
    segment_ids=(at < (lengths + new)[:, None]).astype(jnp.int32),
    positions=jnp.broadcast_to(at, (3, length)),
    tokens=jnp.stack(
      [jax.lax.dynamic_update_slice(batch.tokens[b], answer[b], (lengths[b],)) for b in range(3)]
    ),
  )
  prompt = batch.replace(
    segment_ids=(at < lengths[:, None]).astype(jnp.int32), positions=full.positions
  )
  model = FaceMLLM(config)
  want = jax.jit(model.apply)(params, full)
  slots = length + new
  prefill = jax.jit(lambda b: model.apply(params, b, slots, method="prefill"))
  extend = jax.jit(lambda *a: model.apply(params, *a, method="extend"))
  logits, cache = prefill(prompt)
  for i in range(new + 1):
    for b in range(3):
      np.testing.assert_allclose(logits[b], want[b, lengths[b] - 1 + i], atol=2e-5)
    if i < new:
      logits, cache = extend(answer[:, i], lengths + i, cache)
  assert int(cache.filled) == slots
  with pytest.raises(ValueError, match="slots=39 cannot hold rows of 40"):
    model.apply(params, prompt, 39, method="prefill")


def test_published_parameter_counts():
  # Kills: a part left out or added. Specification: Face-LLaVA-7B.
  shapes = init_shapes(presets.face_llava_7b())
  count = lambda tree: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
  assert {name: count(part) for name, part in shapes.items()} == {
    "decoder": 6_738_415_616,
    "projector": 20_979_712,
    "landmark_projector": 593_920 + 561_152,
    "fusion": 83_922_944,
    "image_encoder": 303_179_776,
    "video_encoder": 404_187_136,
  }
  assert count(shapes) == 7_551_840_256
  assert {x.dtype.name for x in jax.tree.leaves(shapes)} == {"float32"}


def test_init_makes_every_parameter_of_every_batch():
  # Kills: parameters that depend on what a batch holds.
  shapes = init_shapes(TINY)
  for images, videos in ((1, 0), (0, 1), (0, 0), (1, 1)):
    batch = fake_batch(TINY, 2, 60, images, videos)
    logits = jax.eval_shape(lambda p, b=batch: FaceMLLM(TINY).apply({"params": p}, b), shapes)
    assert logits.shape == (2, 60, 61)
  params = jax.jit(lambda key: init(ADD, key))(jax.random.key(1))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, init_shapes(ADD))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_encoders_of_two_widths_are_refused():
  # Kills: the check.
  video = dataclasses.replace(TINY.video, width=22)
  with pytest.raises(ValueError, match=r"video.width=22 but image.width=20"):
    init_shapes(dataclasses.replace(TINY, video=video))


def test_fake_batch_is_valid():
  # Kills: targets that cross a segment, a weight on a picture's token, media cut off.
  batch = jax.tree.map(np.asarray, fake_batch(TINY, rows=4, row_length=60, images=1, videos=1))
  for b, i in zip(*np.nonzero(batch.loss_weights), strict=True):
    assert batch.segment_ids[b, i] == batch.segment_ids[b, i + 1] > 0
    assert batch.targets[b, i] == batch.tokens[b, i + 1] > 0
    assert batch.visual_index[b, i + 1] == -1
  table = VisualTable(TINY, 1, 1)
  for b in range(4):
    want = table.indices("image", 0, bool(batch.images.segmentation_valid[b, 0].all())).tolist()
    want += table.indices("video", 0, bool(batch.videos.segmentation_valid[b, 0].all())).tolist()
    assert batch.visual_index[b][batch.visual_index[b] >= 0].tolist() == want
  with pytest.raises(ValueError, match=r"row_length=20 cannot hold \d+ visual tokens"):
    fake_batch(TINY, rows=1, row_length=20, images=1, videos=1)


# Fields that matter only to rows longer than max_length; test_decoder.py reads both.
UNREAD = {"decoder.max_length", "decoder.rope_factor"}
# Fields whose other value TINY refuses: test_the_projector_is_chosen, test_equals_a_loop and
# test_fusion.py read them.
REFUSED = {"projector", "labels", "fusion.grid", "segmentation.vit", "segmentation.projector"}
CHANGES = {
  "image.image_size": {"image.image_size": 16},
  "image.patch": {"image.patch": 6},
  "image.heads": {"image.heads": 4},
  "image.select_layer": {"image.select_layer": -1},
  "image.tokens": {"image.tokens": "all"},
  "image.frames": {"image.frames": 1},
  "image.activation": {"image.activation": "quick_gelu"},
  "image.layout": {"image.layout": "intern"},
  "image.norm": {"image.norm": "rms"},
  "image.qkv_bias": {"image.qkv_bias": False},
  "image.qk_norm": {"image.qk_norm": True},
  "image.statistics": {"image.statistics": "imagenet"},
  "image.width": {"image.width": 40, "video.width": 40},
  "video.image_size": {"video.image_size": 12},
  "video.patch": {"video.patch": 2},
  "video.heads": {"video.heads": 4},
  "video.select_layer": {"video.select_layer": -1},
  "video.tokens": {"video.tokens": "patches"},
  "video.frames": {"video.frames": 0},
  "video.activation": {"video.activation": "quick_gelu"},
  "video.layout": {"video.layout": "intern"},
  "video.norm": {"video.norm": "rms"},
  "video.qkv_bias": {"video.qkv_bias": False},
  "video.qk_norm": {"video.qk_norm": True},
  "video.statistics": {"video.statistics": "imagenet"},
  "video.width": {"image.width": 40, "video.width": 40},
  "fusion.form": {"fusion.form": "paper"},
  "fusion.heads": {"fusion.heads": 3},
  "fusion.landmark_init": {"fusion.landmark_init": "whitened"},
  "segmentation.mode": {"segmentation.mode": "off"},
  "segmentation.size": {"segmentation.size": 16},
  "segmentation.grid": {"segmentation.grid": 1},
  "segmentation.form": {
    "segmentation.form": "image",
    "segmentation.size": 12,
    "segmentation.grid": 3,
  },
  "decoder.heads": {"decoder.heads": 3},
  "decoder.kv_heads": {"decoder.kv_heads": 2},
  "decoder.qkv_bias": {"decoder.qkv_bias": True},
  "decoder.tied": {"decoder.tied": True},
  "frames": {"frames": 3, "video.frames": 3},
  "dtype": {"dtype": "bfloat16"},
  "remat": {"remat": "full"},
  "attention": {"attention": "splash"},
}


def fields():
  for field in dataclasses.fields(TINY):
    part = getattr(TINY, field.name)
    if dataclasses.is_dataclass(part):
      yield from (f"{field.name}.{f.name}" for f in dataclasses.fields(part))
    else:
      yield field.name


def changed(name):
  changes = CHANGES.get(name)
  if changes is None:
    part, field = name.split(".")
    changes = {name: 2 * getattr(getattr(TINY, part), field)}
  parts = {p: getattr(TINY, p) for p in ("image", "video", "fusion", "segmentation", "decoder")}
  own = {}
  for path, value in changes.items():
    part, _, field = path.rpartition(".")
    if part:
      parts[part] = dataclasses.replace(parts[part], **{field: value})
    else:
      own[path] = value
  return dataclasses.replace(TINY, **parts, **own)


def program(config):
  """All parameters with their shapes, and the computation of a batch with both kinds of media."""
  jaxpr = jax.make_jaxpr(lambda: init(config, jax.random.key(0)))()
  return f"{jaxpr} {jaxpr.consts}"


@pytest.fixture(scope="module")
def tiny_program():
  return program(TINY)


def test_the_projector_is_chosen():
  # Kills: a name that nothing reads.
  plain = dataclasses.replace(INTERN, projector="mlp", segmentation=SegmentationConfig())
  shuffled = dataclasses.replace(plain, projector="pixel_shuffle")
  assert init_shapes(plain)["projector"]["fc1"]["kernel"].shape == (20, 24)
  assert init_shapes(shuffled)["projector"]["fc1"]["kernel"].shape == (80, 24)


@pytest.mark.parametrize("name", [name for name in fields() if name not in REFUSED])
def test_no_setting_is_dead(name, tiny_program):
  # Kills: a field that nothing reads, such as a rope_theta that is never passed on.
  assert (program(changed(name)) == tiny_program) == (name in UNREAD)


def test_sharded_equals_unsharded(randomise):
  # Kills: a layout that changes the result; a constraint that silently does nothing.
  config = dataclasses.replace(
    TINY,
    decoder=dataclasses.replace(TINY.decoder, vocab=62, heads=4, kv_heads=2),
    image=dataclasses.replace(TINY.image, heads=2, frames=1),  # temporal attention, over one frame
    video=None,
  )
  batch = fake_batch(config, rows=8, row_length=30)
  params = randomise(init_shapes(config))
  loss = lambda p, b: jnp.mean(jnp.sin(FaceMLLM(config).apply({"params": p}, b)))
  want, want_grads = jax.jit(jax.value_and_grad(loss))(params, batch)
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  with jax.set_mesh(mesh):
    placed = jax.device_put(params, param_shardings(params, mesh))
    rows = jax.device_put(batch, batch_sharding(mesh))
    step = jax.jit(jax.value_and_grad(loss))
    got, grads = step(placed, rows)
    lowered = step.lower(placed, rows).as_text()
  np.testing.assert_allclose(got, want, atol=1e-6)
  jax.tree.map(
    lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-5), grads, want_grads
  )
  assert lowered.count("sharding_constraint") >= 10
  assert '"tensor"' in lowered
  head = placed["decoder"]["head"]["kernel"]
  assert head.addressable_shards[0].data.shape == (12, 31)
