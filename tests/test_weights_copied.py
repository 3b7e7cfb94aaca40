"""Components that start as another one does: StageConfig.copied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax import weights

COPIES = (("image_encoder", "segmentation_encoder"),)


def found(missing, **params):
  params = {name.replace("__", "/"): jnp.asarray(x) for name, x in params.items()}
  return weights.Loaded(params, tuple(sorted(params)), missing, ("old/kernel",))


def targets(**shapes):
  device = jax.sharding.SingleDeviceSharding(jax.devices()[1])
  return {
    name.replace("__", "/"): jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=device)
    for name, shape in shapes.items()
  }


def test_a_missing_component_starts_as_the_other_does():
  """Kills: a copy in the source's type or place, or that shares its memory (a donated step would
  free both); another component's parameters copied over; names that stay listed as missing."""
  have = found(
    ("fusion/kernel", "segmentation_encoder/patch"),
    image_encoder__patch=np.arange(6.0).reshape(2, 3),
  )
  wanted = targets(fusion__kernel=(2,), segmentation_encoder__patch=(2, 3))
  got = weights.with_copies(have, COPIES, wanted)
  copy = got.params["segmentation_encoder/patch"]
  np.testing.assert_array_equal(copy, [[0, 1, 2], [3, 4, 5]])
  assert copy.dtype == jnp.bfloat16 and copy.devices() == {jax.devices()[1]}
  copy.delete()
  np.testing.assert_array_equal(got.params["image_encoder/patch"][1], [3, 4, 5])
  assert got.loaded == ("image_encoder/patch", "segmentation_encoder/patch")
  assert (got.missing, got.unused) == (("fusion/kernel",), ("old/kernel",))


def test_what_cannot_be_copied_is_named():
  """Kills: a fresh encoder in silence where its source has another shape or is not there."""
  missing = ("segmentation_encoder/patch",)
  wanted = targets(segmentation_encoder__patch=(2, 4))
  with pytest.raises(
    ValueError, match=r"patch \[2, 4\] from image_encoder/patch, which is \[2, 3\]"
  ):
    weights.with_copies(found(missing, image_encoder__patch=np.ones((2, 3))), COPIES, wanted)
  with pytest.raises(ValueError, match="which is not there"):
    weights.with_copies(found(missing), COPIES, wanted)
