"""Seconds of a collective on a torus, by hand."""

import dataclasses
import itertools

import pytest

from facejax import chips
from facejax.plan.network import Network, direction, groups

CHIPS = {chip.name: chip for chip in chips.CHIPS}


@dataclasses.dataclass
class Device:
  """A device of a topology."""

  coords: list[int]
  slice_index: int = 0


def torus(*extent, slices=1, cores=1):
  places = itertools.product(*(range(n) for n in reversed(extent)))
  coords = [list(reversed(place)) + [0] * (3 - len(extent)) for place in places]
  return [Device(c, s) for s in range(slices) for c in coords for _ in range(cores)]


ALL = "replica_groups={}"


def members(*ids):
  return "replica_groups={{" + ",".join(map(str, ids)) + "}}"


@pytest.mark.parametrize(
  "chip, extent, text, ways",
  [
    ("v5e", (16, 16), ALL, 4),  # two closed axes
    ("v5e", (4, 8), ALL, 2),  # v5e closes axes of 16 alone
    ("v5e", (16, 16), members(*range(16)), 2),
    ("v5e", (16, 16), members(0, 1, 2, 3), 1),  # a line
    ("v5e", (16, 16), ALL + '"emitter":"1DAllGatherOnMajorDim"', 2),
    ("v5p", (8, 4, 4), ALL, 6),
    ("v5p", (8, 4, 2), ALL, 5),
    ("v5p", (8, 4, 4), ALL + '[{"phase_rings":[1]},{"phase_rings":[2]}]', 2),
  ],
)
def test_a_gather_uses_the_links_of_the_axes_that_its_group_spans(chip, extent, text, ways):
  # Kills: a line taken for a ring, an open axis for a closed one, one axis for all, or a named
  # strategy of fewer rings ignored.
  network = Network(CHIPS[chip], torus(*extent))
  n = len(network.group(text))
  expected = 1e9 * (n - 1) / n / (ways * CHIPS[chip].link)
  assert network.seconds("all-gather", 1e9, text) == pytest.approx(expected)
  assert network.seconds("all-reduce", 1e9, text) == pytest.approx(2 * expected)


def test_an_exchange_is_bound_by_the_middle_of_the_longest_axis():
  # Kills: an all-to-all timed as a gather: half of all bytes cross the middle of a ring.
  network = Network(CHIPS["v5e"], torus(16, 16))
  row = members(*range(16))
  # A device keeps 1/16; the 8 left of the middle send half of their bytes over 2 * 2 links.
  assert network.seconds("all-to-all", 1e9, row) == pytest.approx(8 * 0.5e9 / 2 / 45e9)
  line = members(0, 1, 2, 3)
  assert network.seconds("all-to-all", 1e9, line) == pytest.approx(2 * 0.5e9 / 1 / 45e9)


def test_between_slices_each_device_carries_its_share():
  # Kills: the whole buffer sent over the slow network, or the network forgotten.
  network = Network(CHIPS["v5e"], torus(16, 16, slices=4))
  within = 2 * 1e9 * 255 / 256 / (4 * 45e9)
  between = 2 * 1e9 / 256 * 3 / 4 / 3.125e9
  assert network.seconds("all-reduce", 1e9, ALL) == pytest.approx(within + between)
  across = members(0, 256, 512, 768)
  assert network.seconds("all-reduce", 1e9, across) == pytest.approx(2 * 1e9 * 3 / 4 / 3.125e9)
  assert network.describe(ALL) == "1024 (x16, y16, 4 slices)"


def test_what_is_sent_between_slices_has_left_its_slice_already():
  # Kills: a slice's share divided among its devices twice, or timed on the links inside.
  network = Network(CHIPS["v5e"], torus(4, 4, slices=4))
  text = '_xla_megascale_target="{1,2}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"'
  assert network.seconds("all-reduce", 1e9, text) == pytest.approx(2 * 0.75e9 / 3.125e9)
  assert network.seconds("all-gather", 1e9, text) == pytest.approx(3e9 / 3.125e9)
  assert network.describe(text) == "4 slices"


def test_two_devices_of_a_chip_share_its_links():
  # Kills: TPU7x's two devices given a link each.
  network = Network(CHIPS["tpu7x"], torus(4, 4, 4, cores=2))
  one_core = members(*range(0, 128, 2))
  both = network.seconds("all-gather", 1e9, ALL)
  assert both == pytest.approx(1e9 * 127 / 128 / (6 * 90e9))
  assert network.seconds("all-gather", 1e9, one_core) == pytest.approx(1e9 * 63 / 64 / (6 * 45e9))


def test_gpus_reach_each_other_inside_a_node():
  # Kills: NVLink between nodes.
  network = Network(CHIPS["h100"], [object()] * 16)
  inside, between = members(*range(8)), members(0, 8)
  assert network.seconds("all-gather", 8e9, inside) == pytest.approx(7e9 / 450e9)
  assert network.seconds("all-gather", 8e9, between) == pytest.approx(4e9 / 50e9)
  assert network.describe(members(0, 8)) == "2"


@pytest.mark.parametrize(
  "text, first",
  [
    ("replica_groups={{0,2},{1,3}}", [0, 2]),
    ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
    ("replica_groups=[2,4]<=[4,2]T(1,0)", [0, 2, 4, 6]),
    ("replica_groups=mesh['a'=4,'b'=2] {'b'}", [0, 1]),
    ("replica_groups=mesh['a'=4,'b'=2] {'a'}", [0, 2, 4, 6]),
    ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}", [0, 1, 4, 5]),
    ("source_target_pairs={{0,1},{1,2},{2,0}}", [0, 1, 2]),
    ("replica_groups={}", [0, 1, 2, 3, 4, 5, 6, 7]),
  ],
)
def test_groups_are_read_in_every_notation(text, first):
  # Kills: a notation that falls through to "all devices".
  assert groups(text, 8) == first


def test_permutes_have_a_direction():
  # Kills: permutes of both directions timed one after the other.
  assert direction("source_target_pairs={{0,1},{1,2},{2,0}}") == 1
  assert direction("source_target_pairs={{0,3},{3,2},{2,1}}") == -1
  assert direction("replica_groups={}") == 0


def test_one_device_sends_nothing():
  # Kills: a division by the number of other devices.
  assert Network(CHIPS["v5e"], torus(1, 1)).seconds("all-reduce", 1e9, members(0)) == 0
