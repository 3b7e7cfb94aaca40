"""Architectures by name. A plain function returns a ModelConfig."""

from facejax.config import (
  DecoderConfig,
  FusionConfig,
  ModelConfig,
  SegmentationConfig,
  VitConfig,
)


def face_llava_7b(fusion: str = "released") -> ModelConfig:
  """Face-LLaVA: LanguageBind ViT-L/14 encoders, Vicuna-7B. 7,551,840,256 parameters."""
  image = VitConfig(image_size=224, patch=14, width=1024, layers=24, heads=16, mlp=4096)
  video = VitConfig(
    image_size=224, patch=14, width=1024, layers=24, heads=16, mlp=4096, tokens="all", frames=8
  )
  decoder = DecoderConfig(
    vocab=32_000,
    width=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    head_width=128,
    mlp=11_008,
    max_length=4096,
  )
  return ModelConfig(image=image, decoder=decoder, video=video, fusion=FusionConfig(form=fusion))


def demo(vocab: int) -> ModelConfig:
  """A model that learns drawn faces on a CPU in minutes: 2 million parameters, 64 tokens a picture.

  Most of them are in the encoder, which has to tell ages and seams; the language is simple.
  """
  return ModelConfig(
    image=VitConfig(
      image_size=112, patch=14, width=128, layers=6, heads=4, mlp=512, select_layer=-1
    ),
    decoder=DecoderConfig(
      vocab=vocab,
      width=128,
      layers=3,
      heads=4,
      kv_heads=2,
      head_width=32,
      mlp=352,
      max_length=1024,
    ),
    fusion=FusionConfig(heads=4),
    segmentation=SegmentationConfig(mode="add", size=56, grid=8, width=64),
    dtype="float32",  # bfloat16 is no faster on a CPU
    remat="none",
  )


def tiny() -> ModelConfig:
  """For tests: both encoders, temporal attention, map tokens; sizes are pairwise distinct."""
  image = VitConfig(image_size=12, patch=4, width=20, layers=3, heads=5, mlp=28)
  video = VitConfig(
    image_size=8, patch=4, width=20, layers=3, heads=2, mlp=26, tokens="all", frames=2
  )
  decoder = DecoderConfig(
    vocab=61, width=24, layers=2, heads=6, kv_heads=3, head_width=10, mlp=34, max_length=96
  )
  return ModelConfig(
    image=image,
    decoder=decoder,
    video=video,
    fusion=FusionConfig(heads=4),
    segmentation=SegmentationConfig(mode="concat", size=14, grid=2, width=22, classes=7),
    frames=2,
    dtype="float32",
    remat="none",
  )
