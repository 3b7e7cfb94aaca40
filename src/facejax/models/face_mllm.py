"""The whole model on one page. Batch -> logits [B L V].

pixels -> encoder -> projector -------------> fusion -> + maps (mode "add") -> visual tokens
landmarks -> landmark projector (nine tokens) --^           ^
class maps -> segmentation encoder -------------------------+  (mode "concat": tokens of their own)
text tokens -> embedding; visual tokens take the places that visual_index names -> decoder -> logits
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from facejax.config import ModelConfig
from facejax.fake import fake_batch
from facejax.models.decoder import Decoder
from facejax.models.fusion import FUSIONS
from facejax.models.kernels import kernel_for
from facejax.models.label_head import LabelHead
from facejax.models.landmark_projector import LandmarkProjector
from facejax.models.projector import PROJECTORS
from facejax.models.segmentation_stream import (
  MapProjector,
  SegmentationEncoder,
  add_maps,
  painted,
)
from facejax.models.vit import Vit
from facejax.sharding import AxisRules, constrain
from facejax.types import Batch, Cache, Kind, Media, typed
from facejax.visual_table import VisualTable


class FaceMLLM(nn.Module):
  """A multimodal language model of the face. The names of its parts are the checkpoint's.

  `platform` is that of the devices it runs on ("cpu", "gpu", "tpu"): attention's kernel follows it.
  `apart`: the decoder's parameters are those of decoder.take_apart, and so is its cache.
  """

  config: ModelConfig
  rules: AxisRules = AxisRules()
  platform: str = "cpu"
  apart: bool = False

  def setup(self):
    """Names the parts. Raises ValueError if the encoders cannot share the projector."""
    cfg, D = self.config, self.config.decoder.width
    if cfg.video and cfg.video.width != cfg.image.width:
      raise ValueError(
        f"ModelConfig: video.width={cfg.video.width} but image.width={cfg.image.width}; expected "
        "the same, one projector serves both"
      )
    shared: dict[str, Any] = dict(dtype=jnp.dtype(cfg.dtype), rules=self.rules)
    self.image_encoder = Vit(cfg.image, **shared)
    if cfg.video:
      self.video_encoder = Vit(cfg.video, **shared)
    self.projector = PROJECTORS[cfg.projector](D, **shared)
    if cfg.fusion:
      self.landmark_projector = LandmarkProjector(D, fresh=cfg.fusion.landmark_init, **shared)
      self.fusion = FUSIONS[cfg.fusion.form](cfg.fusion, **shared)
    if cfg.segmentation.vit:
      self.segmentation_encoder = Vit(cfg.segmentation.vit, **shared)
    if cfg.segmentation.mode != "off" and cfg.segmentation.projector == "own":
      maps = MapProjector if cfg.map_encoder else SegmentationEncoder
      self.segmentation = maps(cfg.segmentation, D, **shared)
    if cfg.labels:
      self.labels = LabelHead(cfg.labels, shared["dtype"])
    kernel = kernel_for(cfg.attention, self.platform)
    self.decoder = Decoder(cfg.decoder, remat=cfg.remat, kernel=kernel, apart=self.apart, **shared)

  def visual(self, media: Media, kind: Kind) -> tuple[jax.Array, jax.Array | None, dict[str, Any]]:
    """Tokens [B M*T*P D] of a batch's pictures or clips, then of their maps [B M*T*Q D] or None.

    Absent landmarks and maps leave the tokens of their frame as they are, bit for bit.
    """
    cfg = self.config
    B, M, T = media.pixels.shape[:3]
    rows = lambda x: x.reshape(B, M * T * x.shape[2], -1)
    media = jax.tree.map(lambda x: x.reshape(B * M, *x.shape[2:]), media)
    encoder = self.video_encoder if kind == "video" and cfg.video else self.image_encoder
    features, out = encoder(media.pixels)
    out = {f"encoder/{name}": x for name, x in out.items()}
    tokens = out["projected"] = self.projector(features)
    if cfg.fusion:
      present = media.landmarks_valid
      landmarks = jnp.where(present[..., None, None], media.landmarks, 0)
      regions = out["regions"] = self.landmark_projector(landmarks)
      tokens, fusion = self.fusion(tokens, regions, landmarks, present)
      out |= {f"fusion/{name}": x for name, x in fusion.items()}
    maps = None
    if cfg.segmentation.mode != "off":
      present = media.segmentation_valid
      maps = out["maps"] = self._map_tokens(media.segmentation)
      if cfg.segmentation.mode == "add":
        tokens, maps = add_maps(tokens, maps, present), None
    if cfg.labels:
      logits = self.labels(tokens, maps, media.segmentation_valid)
      out["labels"] = logits.reshape(B, M, -1)
    if maps is not None:
      maps = rows(jnp.where(media.segmentation_valid[..., None, None], maps, 0))
    return rows(tokens), maps, out

  def _map_tokens(self, maps: jax.Array) -> jax.Array:
    """[B T y x] -> [B T Q D]; each frame of a clip on its own."""
    cfg = self.config.segmentation
    if cfg.form == "shares":
      return self.segmentation(maps)
    encoder = self.segmentation_encoder if cfg.form == "vit" else self.image_encoder
    features, _ = encoder(painted(maps))
    features = features[:, :, -(cfg.grid**2) :]  # no class token: tokens are cells
    return self.projector(features) if cfg.projector == "image" else self.segmentation(features)

  def embed(self, batch: Batch) -> tuple[jax.Array, dict[str, Any]]:
    """The decoder's input [B L D]: text embeddings with the visual tokens spliced in.

    Kinds of media without a slot (M = 0) cost nothing. Also returns intermediates by name.
    """
    x = self.decoder.embed(batch.tokens)
    tokens: list[jax.Array] = []
    maps: list[jax.Array] = []
    out: dict[str, Any] = {}
    kinds: tuple[tuple[Kind, Media], ...] = (("image", batch.images), ("video", batch.videos))
    for kind, media in kinds:
      if media.pixels.shape[1]:
        own, own_maps, own_out = self.visual(media, kind)
        tokens.append(own)
        maps += [] if own_maps is None else [own_maps]
        out |= {f"{kind}/{name}": y for name, y in own_out.items()}
    if tokens:
      x = splice(x, jnp.concatenate(tokens + maps, axis=1), batch.visual_index)
    return constrain(x, self.rules, "batch", "length", None), out

  @typed
  def __call__(self, batch: Batch) -> Float[Array, "B L V"]:
    """Float32 scores of the token after each position; see Batch.targets."""
    x, _ = self.embed(batch)
    hidden, _ = self.decoder(x, batch.positions, batch.segment_ids)
    return self.decoder.logits(hidden)

  @typed
  def loss(self, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over a batch's target tokens of -log p in nats, and their weight; see losses.py.

    A labelled picture counts as config.labels.weight tokens of a loss of its own; see LabelHead.
    """
    x, out = self.embed(batch)
    hidden, _ = self.decoder(x, batch.positions, batch.segment_ids)
    total, weight = self.decoder.loss(hidden, batch.targets, batch.loss_weights)
    for kind, media in (("image", batch.images), ("video", batch.videos)):
      if media.labels is not None and media.labels.size:
        flat = lambda x: x.reshape(-1, x.shape[-1])
        own = self.labels.loss(flat(out[f"{kind}/labels"]), flat(media.labels))
        total, weight = total + own[0], weight + own[1]
    return total, weight

  def label_scores(self, batch: Batch, kind: Kind = "image") -> Float[Array, "B M A"]:
    """Probabilities of the labels of a batch's pictures or clips; groups add up to 1."""
    media = batch.images if kind == "image" else batch.videos
    return self.labels.scores(self.visual(media, kind)[2]["labels"])

  def prefill(self, batch: Batch, slots: int) -> tuple[jax.Array, Cache]:
    """Reads prompts: scores [B V] after each row's last token, and a cache of `slots` slots.

    A row holds one segment, padded on the right. Raises ValueError if the rows do not fit.
    """
    cfg = self.config.decoder
    B, L = batch.tokens.shape
    if slots < L:
      raise ValueError(f"prefill: slots={slots} cannot hold rows of {L} tokens; raise slots")
    zeros = jnp.zeros((B, cfg.kv_heads, slots, cfg.head_width), self.config.dtype)
    layers = (
      (zeros,) * cfg.layers if self.apart else jnp.broadcast_to(zeros, (cfg.layers, *zeros.shape))
    )
    real = batch.segment_ids > 0
    valid = jnp.pad(real, ((0, 0), (0, slots - L)))
    cache = Cache(keys=layers, values=layers, valid=valid, filled=jnp.int32(0))
    x, _ = self.embed(batch)
    hidden, cache = self.decoder(x, batch.positions, batch.segment_ids, cache)
    last = jnp.maximum(real.sum(1) - 1, 0)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    return self.decoder.logits(hidden)[:, 0], cache

  @typed
  def extend(
    self, tokens: Int[Array, " B"], positions: Int[Array, " B"], cache: Cache
  ) -> tuple[Float[Array, "B V"], Cache]:
    """Reads one more token a row, into slot cache.filled: scores after it, and the cache.

    The caller allots slots: a token behind the last one would overwrite it.
    """
    valid = cache.valid.at[:, cache.filled].set(True)
    x = self.decoder.embed(tokens[:, None])
    cache = dataclasses.replace(cache, valid=valid)
    hidden, cache = self.decoder(x, positions[:, None], valid[:, None], cache)
    return self.decoder.logits(hidden)[:, 0], cache


@typed
def splice(
  text: Float[Array, "B L D"], visual: Float[Array, "B table D"], visual_index: Int[Array, "B L"]
) -> Float[Array, "B L D"]:
  """Visual token visual_index[b, i] at the positions where it is not -1, text elsewhere.

  text t0 t1 t2 t3, visual v0 v1 v2, visual_index -1 1 2 -1 -> t0 v1 v2 t3
  """
  index = visual_index[..., None]
  return jnp.where(index >= 0, jnp.take_along_axis(visual, jnp.maximum(index, 0), axis=1), text)


def init(config: ModelConfig, rng: jax.Array) -> dict[str, Any]:
  """Fresh float32 parameters of every part, whatever a batch holds. Run it under jit to place them.

  N(0, 0.02) weights, zero biases, unit norms: our choice for training from scratch. The landmark
  modules start as the released code's do, or as FusionConfig.landmark_init says.
  """
  videos = int(config.video is not None)
  length = VisualTable(config, 1, videos).size + 2
  batch = fake_batch(config, rows=1, row_length=length, images=1, videos=videos)
  return FaceMLLM(config).init(rng, batch)["params"]


def init_shapes(config: ModelConfig) -> dict[str, Any]:
  """The shapes of init(), without computing anything."""
  return jax.eval_shape(lambda: init(config, jax.random.key(0)))
