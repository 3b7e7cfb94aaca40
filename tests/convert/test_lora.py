"""LoRA adapters: the sum, both names of a module, and adapters that are another base's."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import released_files as released
from by_hand import flat
from safetensors.numpy import save_file

from facejax import convert

RANK, ALPHA = 5, 8.0
SHAPES = {
  "self_attn.q_proj": (24, 24),
  "self_attn.v_proj": (8, 24),
  "mlp.gate_proj": (34, 24),
  "mlp.down_proj": (24, 34),
}


def base(tmp_path, names=None, config=None):
  weights = released.draw(released.internvl_hf() if names is None else names)
  config = config or released.internvl_config(False)
  return released.write(tmp_path / "base", weights, config)


def adapter(tmp_path, prefix="model.language_model.", layers=(0, 2), **config):
  """An adapter's folder and {our path: {layer: B @ A}}, summed by loops."""
  rng = np.random.default_rng(3)
  tensors, deltas = {}, {}
  for i in layers:
    for module, (out, inputs) in SHAPES.items():
      a, b = (rng.normal(0, 0.3, s).astype(np.float32) for s in ((RANK, inputs), (out, RANK)))
      name = f"base_model.model.{prefix}layers.{i}.{module}"
      tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
      short = module.replace("self_attn.", "attention/").replace("mlp.", "").replace("_proj", "")
      product = np.zeros((inputs, out))
      for r in range(RANK):
        for o in range(out):
          product[:, o] += a[r].astype(float) * float(b[o, r])
      deltas.setdefault(f"decoder/blocks/{short}/kernel", {})[i] = product
  folder = tmp_path / "adapter"
  folder.mkdir(exist_ok=True)
  save_file(tensors, folder / "adapter_model.safetensors")
  full = dict(peft_type="LORA", r=RANK, lora_alpha=ALPHA, base_model_name_or_path="some/base")
  (folder / "adapter_config.json").write_text(json.dumps({**full, "bias": "none", **config}))
  return folder, deltas


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_is_added(tmp_path, prefix, rslora):
  """Kills: B and A swapped, the scale without the root, a layer's change at another's place.

  Modules are named as before and since transformers 4.52; the base's file has one of the two.
  """
  source = base(tmp_path)
  folder, deltas = adapter(tmp_path, prefix, use_rslora=rslora)
  before = flat(convert.load(source).params)
  after = flat(convert.load(source, adapter=folder).params)
  scale = ALPHA / (RANK**0.5 if rslora else RANK)
  for path, old in before.items():
    want = old.astype(float)
    for layer, product in deltas.get(path, {}).items():
      want[layer] += scale * product
    if path in deltas:
      np.testing.assert_allclose(after[path], want, rtol=2e-6, atol=2e-6)
    else:
      np.testing.assert_array_equal(after[path], old)


def test_slices_and_types_of_a_sum(tmp_path):
  """Kills: a change that is not cut to the slice; a sum rounded before it is complete."""
  source = base(tmp_path, config=released.internvl_config(False))
  folder, _ = adapter(tmp_path)
  opened = convert.open_checkpoint(source, adapter=folder)
  parameter = opened.matched.parameters["decoder/blocks/down/kernel"]
  whole = parameter.read()
  assert whole.shape == (3, 34, 24)
  part = parameter.read((slice(1, 3), slice(5, 31), slice(2, 9)))
  np.testing.assert_allclose(part, whole[1:3, 5:31, 2:9], rtol=1e-6)
  half = parameter.read(dtype=np.dtype(jnp.bfloat16))
  np.testing.assert_array_equal(half, whole.astype(jnp.bfloat16))


def test_an_adapter_of_a_fused_matrix(tmp_path):
  """Kills: a third of B taken for another: q's change in v."""
  source = base(tmp_path, released.internvl(), released.internvl_config(True))
  rng = np.random.default_rng(4)
  a, b = rng.normal(size=(RANK, 20)), rng.normal(size=(60, RANK))
  name = "base_model.model.vision_model.encoder.layers.1.attn.qkv"
  folder, _ = adapter(tmp_path)
  tensors = {f"{name}.lora_A.default.weight": a, f"{name}.lora_B.default.weight": b}
  tensors = {n: x.astype(np.float32) for n, x in tensors.items()}
  save_file(tensors, folder / "adapter_model.safetensors")
  before = flat(convert.load(source).params)
  after = flat(convert.load(source, adapter=folder).params)
  for i, x in enumerate("qkv"):
    path = f"image_encoder/blocks/attention/{x}/kernel"
    change = ALPHA / RANK * (b[20 * i : 20 * (i + 1)] @ a).T
    np.testing.assert_allclose(after[path][1] - before[path][1], change, atol=1e-5)
    np.testing.assert_array_equal(after[path][0], before[path][0])


def test_an_adapter_of_another_base(tmp_path):
  """Kills: an adapter that is added in part, or broadcast."""
  source = base(tmp_path)
  folder, _ = adapter(tmp_path, layers=(0, 3))
  with pytest.raises(ValueError, match=r"layers\.3\.\S+ \[5, 34\] in .*adapter_model\.safetensors: "
                     r"the base has no linear layer .*trained on 'some/base'"):  # fmt: skip
    convert.load(source, adapter=folder)
  names = {n: (s if s != (34, 24) else (36, 24)) for n, s in released.internvl_hf().items()}
  names = {n: (s if s != (24, 34) else (24, 36)) for n, s in names.items()}
  config = released.internvl_config(False)
  config["text_config"] = {**released.QWEN, "intermediate_size": 36}
  other = base(tmp_path, names, config)
  folder, _ = adapter(tmp_path)
  with pytest.raises(ValueError, match=r"down_proj\.lora_A\.weight \[5, 34\] in .*: the base's "
                     r"layer needs \[5, 36\] - .* was trained on 'some/base'"):  # fmt: skip
    convert.load(other, adapter=folder)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"peft_type": "IA3"}, "'peft_type' is 'IA3', supported: 'LORA'"),
    ({"use_dora": True}, "'use_dora' is True, supported: False"),
    ({"bias": "all"}, "'bias' is 'all', supported: 'none'"),
    ({"modules_to_save": ["lm_head"]}, r"'modules_to_save' is \['lm_head'\], supported: None"),
    ({"rank_pattern": {"q": 4}}, r"'rank_pattern' is \{'q': 4\}, supported: None"),
    ({"r": None}, "has no 'r', which the model"),
    ({"r": 4}, r"lora_A\.weight \[5, 34\] in .*: the base's layer needs \[4, 34\]"),
  ],
)
def test_kinds_of_adapters_that_are_refused(tmp_path, config, message):
  """Kills: the low-rank part of another method added as if it were all of it."""
  folder, _ = adapter(tmp_path, **config)
  with pytest.raises(ValueError, match=message):
    convert.load(base(tmp_path), adapter=folder)


def test_halves_and_strangers(tmp_path):
  """Kills: a half of an adapter skipped in silence."""
  source = base(tmp_path)
  folder, _ = adapter(tmp_path)
  file = folder / "adapter_model.safetensors"
  name = "base_model.model.language_model.model.layers.0.mlp.up_proj"
  save_file({f"{name}.lora_A.weight": np.ones((RANK, 24), np.float32)}, file)
  with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj has only lora_A - the other half"):
    convert.load(source, adapter=folder)
  save_file({f"{name}.lora_magnitude_vector": np.ones(34, np.float32)}, file)
  with pytest.raises(ValueError, match=r"lora_magnitude_vector \[34\] in .*expected base_model"):
    convert.load(source, adapter=folder)
  save_file({}, file)
  with pytest.raises(ValueError, match="the adapter's file holds no tensors"):
    convert.load(source, adapter=folder)
  (folder / "adapter_config.json").unlink()
  with pytest.raises(FileNotFoundError, match=r"adapter_config\.json does not exist"):
    convert.load(source, adapter=folder)


def test_an_imported_folder_takes_no_adapter(tmp_path):
  """Kills: an adapter's changes lost, as a folder of ours has none of the base's names."""
  source = base(tmp_path)
  folder, deltas = adapter(tmp_path)
  convert.import_folder(source, tmp_path / "merged", adapter=folder)
  merged = flat(convert.load(tmp_path / "merged").params)
  want = flat(convert.load(source, adapter=folder).params)
  for path in deltas:
    np.testing.assert_array_equal(merged[path], want[path])
  with pytest.raises(ValueError, match=r"merged is imported already: give the adapter .* to the"):
    convert.load(tmp_path / "merged", adapter=folder)
