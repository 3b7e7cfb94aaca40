"""What a checkpoint holds against what a run needs. two trees -> nothing, or an error by leaf."""

from typing import Any

import jax


def compare_arrays(saved: Any, target: Any, where: str) -> None:
  """Raises ValueError naming each leaf that differs; Orbax would name no leaf, or cast silently."""
  found, wanted = _described(saved), _described(target)
  problems = [
    f"{name}: saved {found.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
    for name in sorted(set(found) | set(wanted))
    if found.get(name) != wanted.get(name)
  ]
  if problems:
    raise ValueError(f"{where} does not fit the run:\n  " + "\n  ".join(problems))


def _described(tree: Any) -> dict[str, str]:
  """`name: shape@dtype` of the leaves; names do not depend on the types of the containers."""
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  described = {}
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.eval_shape(jax.random.key_data, x)  # what Orbax stores of a key
    described[name(path)] = f"{list(x.shape)}@{x.dtype}"
  return described
