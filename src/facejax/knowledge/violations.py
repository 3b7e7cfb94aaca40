"""How far scores break rules. scores [B N] in [0, 1], RuleSet -> violations [B R], and their loss.

The paper has a logical constraint L_c whose formula it does not publish; both forms are ours, the
usual relaxations of the rules:

                     product                          hinge
    a implies b      s_a (1 - s_b)                    relu(s_a - s_b)
    a excludes b     s_a s_b                          relu(s_a + s_b - 1)
    exactly one of G (sum_G s - 1)^2                  |sum_G s - 1|
    at most one of G sum of s_i s_j over pairs of G   relu(sum_G s - 1)

Each is 0 on every 0/1 assignment that keeps the rule and at least 1 on every one that breaks it.
Between them they differ: the product form pushes until one side is certain, the hinge form stops
once the probabilities could belong to a face that keeps the rule (P(a) <= P(b), and so on). On
uncertain scores the product form therefore costs calibration.
"""

import functools

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from facejax.config_checks import one_of
from facejax.knowledge.rules import RuleSet
from facejax.types import typed

FORMS = ("product", "hinge")


@flax.struct.dataclass
class RuleArrays:
  """Rules as arrays; their columns are in the order of this listing, see `order`."""

  implies: Int[Array, "I 2"]
  excludes: Int[Array, "E 2"]
  exactly_one: Float[Array, "G N"]  # 1 where a label is of the group
  at_most_one: Float[Array, "H N"]


def order(rules: RuleSet) -> list[int]:
  """For each column of violations(): which rule of the set it is."""
  kinds = ("implies", "excludes", "exactly_one", "at_most_one")
  return [i for kind in kinds for i, rule in enumerate(rules.rules) if rule.kind == kind]


def compiled(rules: RuleSet) -> RuleArrays:
  """The rules as arrays, for functions that are traced."""
  pairs = lambda kind: jnp.asarray(np.array(rules.of(kind), np.int32).reshape(-1, 2))
  members = lambda kind: jnp.asarray(
    np.array(
      [np.isin(np.arange(len(rules.labels)), group) for group in rules.of(kind)], np.float32
    ).reshape(-1, len(rules.labels))
  )
  return RuleArrays(
    pairs("implies"), pairs("excludes"), members("exactly_one"), members("at_most_one")
  )


@typed
def violations(
  scores: Float[Array, "B N"], rules: RuleArrays, form: str = "product"
) -> Float[Array, "B R"]:
  """How far each rule is broken, float32, 0 where it is kept.

  Raises ValueError for an unknown form.
  """
  one_of("form of violations", form, FORMS)
  scores = scores.astype(jnp.float32)
  if_, then = scores[:, rules.implies[:, 0]], scores[:, rules.implies[:, 1]]
  one, other = scores[:, rules.excludes[:, 0]], scores[:, rules.excludes[:, 1]]
  # Sums of up to N scores: on a TPU a product of matrices would round the scores to bfloat16.
  total = functools.partial(jnp.einsum, "BN,GN->BG", precision="highest")
  each, most = total(scores, rules.exactly_one), total(scores, rules.at_most_one)
  if form == "product":
    pairs = (most**2 - total(scores**2, rules.at_most_one)) / 2
    columns = if_ * (1 - then), one * other, (each - 1) ** 2, jnp.maximum(pairs, 0)
  else:
    above = lambda x: jnp.maximum(x, 0)
    columns = above(if_ - then), above(one + other - 1), jnp.abs(each - 1), above(most - 1)
  return jnp.concatenate(columns, axis=1)


@typed
def rule_loss(
  scores: Float[Array, "B N"],
  rules: RuleArrays,
  form: str = "product",
  judged: Bool[Array, "B N"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """L_c as the sum of violations over rows and rules, and how many there are.

  Args:
    scores: in [0, 1].
    rules: of compiled().
    form: of FORMS.
    judged: labels that count; a rule with another one counts for nothing. None: all. A label whose
      truth is unknown still has a score, which is to keep the rules: leave it in, unless the rows
      are no samples at all (padding).
  """
  each = violations(scores, rules, form)
  weights = jnp.ones_like(each)
  if judged is not None:
    both = lambda pairs: judged[:, pairs[:, 0]] & judged[:, pairs[:, 1]]
    whole = lambda members: (~judged).astype(jnp.float32) @ members.T == 0
    columns = (
      both(rules.implies),
      both(rules.excludes),
      whole(rules.exactly_one),
      whole(rules.at_most_one),
    )
    weights = jnp.concatenate(columns, axis=1).astype(jnp.float32)
  return jnp.sum(each * weights), jnp.sum(weights)
