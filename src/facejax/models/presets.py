"""Architectures by name. A plain function returns a ModelConfig."""

import dataclasses

from facejax.config import (
  DecoderConfig,
  FusionConfig,
  ModelConfig,
  SegmentationConfig,
  VitConfig,
)

LLAMA2_7B = DecoderConfig(
  vocab=32_000,
  width=4096,
  layers=32,
  heads=32,
  kv_heads=32,
  head_width=128,
  mlp=11_008,
  max_length=4096,
)
LLAMA2_13B = dataclasses.replace(
  LLAMA2_7B, width=5120, layers=40, heads=40, kv_heads=40, mlp=13_824
)

# Qwen2.5 in InternVL3: more ids than Qwen's own, and never tied to the output head.
QWEN25_05B = DecoderConfig(
  vocab=151_674,
  width=896,
  layers=24,
  heads=14,
  kv_heads=2,
  head_width=64,
  mlp=4864,
  max_length=32_768,
  rope_theta=1e6,
  eps=1e-6,
  qkv_bias=True,
  rope_factor=2.0,
)
QWEN25_7B = dataclasses.replace(
  QWEN25_05B, width=3584, layers=28, heads=28, kv_heads=4, head_width=128, mlp=18_944
)
# Released 32B models of Qwen2.5 differ in eps (1e-5 or 1e-6): a checkpoint's own config decides.
QWEN25_32B = dataclasses.replace(QWEN25_7B, width=5120, layers=64, heads=40, kv_heads=8, mlp=27_648)

CLIP_L_336 = VitConfig(
  image_size=336,
  patch=14,
  width=1024,
  layers=24,
  heads=16,
  mlp=4096,
  activation="quick_gelu",
)
INTERN_VIT_300M = VitConfig(
  image_size=448,
  patch=14,
  width=1024,
  layers=24,
  heads=16,
  mlp=4096,
  select_layer=-1,
  eps=1e-6,
  layout="intern",
  statistics="imagenet",
)
INTERN_VIT_6B = dataclasses.replace(
  INTERN_VIT_300M,
  width=3200,
  layers=45,
  heads=25,
  mlp=12_800,
  norm="rms",
  qkv_bias=False,
  qk_norm=True,
)


def face_llava_7b(fusion: str = "released") -> ModelConfig:
  """Face-LLaVA: LanguageBind ViT-L/14 encoders, Vicuna-7B. 7,551,840,256 parameters."""
  image = VitConfig(image_size=224, patch=14, width=1024, layers=24, heads=16, mlp=4096)
  video = dataclasses.replace(image, tokens="all", frames=8)
  return ModelConfig(image=image, decoder=LLAMA2_7B, video=video, fusion=FusionConfig(form=fusion))


def llava_15_7b() -> ModelConfig:
  """LLaVA-1.5: CLIP ViT-L/14 at 336 pixels, Vicuna-7B; 576 tokens a picture."""
  return ModelConfig(image=CLIP_L_336, decoder=LLAMA2_7B)


def llava_15_13b() -> ModelConfig:
  """LLaVA-1.5: CLIP ViT-L/14 at 336 pixels, Vicuna-13B; 576 tokens a picture."""
  return ModelConfig(image=CLIP_L_336, decoder=LLAMA2_13B)


def internvl3_1b() -> ModelConfig:
  """InternVL3-1B, which FaceLLM-1B tunes: InternViT-300M, Qwen2.5-0.5B; 256 tokens a tile."""
  return ModelConfig(image=INTERN_VIT_300M, decoder=QWEN25_05B, projector="pixel_shuffle")


def internvl3_8b() -> ModelConfig:
  """InternVL3-8B, which FaceLLM-8B tunes: InternViT-300M, Qwen2.5-7B; 256 tokens a tile."""
  return ModelConfig(image=INTERN_VIT_300M, decoder=QWEN25_7B, projector="pixel_shuffle")


def internvl3_38b() -> ModelConfig:
  """InternVL3-38B, which FaceLLM-38B tunes: InternViT-6B, Qwen2.5-32B; 256 tokens a tile."""
  return ModelConfig(image=INTERN_VIT_6B, decoder=QWEN25_32B, projector="pixel_shuffle")


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
    fusion=FusionConfig(heads=4, landmark_init="whitened"),
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
