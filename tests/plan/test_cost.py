"""What a program does, from small programs whose cost is known by hand."""

import dataclasses

import pytest
from hlo_samples import LOOP, SLICES, SPLASH

from facejax import chips
from facejax.plan import cost, hlo, kernels

V5E = next(chip for chip in chips.CHIPS if chip.name == "v5e")


@pytest.fixture(scope="module")
def work():
  return cost.measure(hlo.parse(LOOP), V5E)


def test_a_loop_counts_as_often_as_it_turns(work):
  # Kills: a body counted once, or the reducer's 999 cycles counted as work.
  assert (work.matmul_cycles, work.other_cycles) == (3 * 1000, 3 * 50)
  assert work.flops == 3 * 2 * 8 * 16 * 32
  assert not work.loops_unknown


def test_an_asynchronous_gather_counts_once_a_turn(work):
  # Kills: its start and its step counted as two collectives.
  gathers = [c for c in work.collectives if c.op == "all-gather"]
  assert [(c.count, c.bytes, c.overlaps, c.where) for c in gathers] == [
    (3, 3 * 16 * 32 * 2, True, "jit(step)/up")
  ]


def test_a_sum_whose_slices_are_kept_is_a_reduce_scatter(work):
  # Kills: an all-reduce-scatter fusion taken for an all-reduce, which sends twice as much; the
  # float32 of partial sums forgotten where the result is bfloat16.
  found = {c.op: (c.count, c.bytes, c.overlaps) for c in work.collectives if c.op != "all-gather"}
  assert found == {"reduce-scatter": (3, 3 * 256, False), "all-reduce": (1, (256 + 128) / 2, False)}


def test_a_sum_between_slices_knows_what_runs_beside_it():
  # Kills: what leaves a slice forgotten, as it is no collective of the program's; work after its
  # end counted as hiding it.
  (found,) = cost.measure(hlo.parse(SLICES), V5E).collectives
  assert (found.op, found.bytes, found.count, found.beside) == ("all-reduce", 8 * 16 * 2, 1, 70)


def test_an_unknown_kernel_is_named_and_free_calls_are_not(work):
  # Kills: a kernel without a formula that vanishes; metadata's "}" taken for the program's end.
  assert [(k.name, k.count, k.flops, k.known) for k in work.kernels.values()] == [
    ("kernel", 1, 0.0, False)
  ]


def test_a_loop_whose_turns_are_not_said_is_named():
  # Kills: an unknown loop silently counted as one turn.
  text = LOOP.replace("direction=LT", "direction=NE")
  work = cost.measure(hlo.parse(text), V5E)
  assert work.loops_unknown == ["while.1"]
  assert work.matmul_cycles == 1000


def test_a_known_trip_count_is_believed():
  # Kills: the condition read where the compiler says the count itself.
  text = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')
  assert cost.measure(hlo.parse(text), V5E).matmul_cycles == 5 * 1000


def test_splash_kernels_count_the_tiles_on_and_below_the_diagonal():
  # Kills: tiles above the diagonal counted, a kernel's products mixed up, the wrong block sizes.
  found = cost.measure(hlo.parse(SPLASH), V5E).kernels
  head, heads = 128, 2 * 5
  square = sum(1 for i in range(3) for j in range(3) if j <= i) * 512 * 512
  tall = (
    sum(1 for i in range(6) for j in range(3) if j * 512 < (i + 1) * 256) * 256 * 512
  )  # queries in tiles of 256
  expected = {"fwd": 2 * square, "dkv": 4 * square, "dq": 3 * tall}
  for name, pairs in expected.items():
    kernel = next(k for k in found.values() if f"_{name}_" in k.name)
    assert kernel.known and kernel.flops == 2 * heads * head * pairs, name
    share = dataclasses.asdict(V5E.kernels[0][1])[{"fwd": "forward"}.get(name, name)]
    assert kernel.seconds == pytest.approx(kernel.flops / (V5E.peak * share))


def test_a_backward_kernel_that_is_not_split_has_one_core():
  # Kills: two cores counted for a grid that has no axis for them; the forward kernel halved too.
  v5p = next(chip for chip in chips.CHIPS if chip.name == "v5p")
  split = cost.measure(hlo.parse(SPLASH), v5p).kernels
  whole = cost.measure(hlo.parse(SPLASH.replace("[2,5,1536", "[10,1536")), v5p).kernels
  for name, kernel in split.items():
    assert whole[name].flops == kernel.flops
    assert whole[name].seconds == pytest.approx(kernel.seconds * (1 if "_fwd_" in name else 2))


def test_a_grid_made_at_run_time_skips_what_no_sample_joins():
  # Kills: tiles skipped at run time counted, or skipped where the grid is fixed.
  joined = lambda tile: {512: 0.5, 256: 0.25}[tile]
  fixed = cost.measure(hlo.parse(SPLASH), V5E, joined).kernels
  made = cost.measure(hlo.parse(SPLASH.replace("s8[1", "s32[1")), V5E, joined).kernels
  whole = cost.measure(hlo.parse(SPLASH), V5E).kernels
  for name, kernel in whole.items():
    assert fixed[name].flops == kernel.flops
    assert made[name].flops == kernel.flops * (0.25 if "_dq_" in name else 0.5)


def test_larger_tiles_have_shares_of_their_own():
  # Kills: v6e's tiles of 1024 timed as tiles of 512.
  v6e = next(chip for chip in chips.CHIPS if chip.name == "v6e")
  call = next(i for i in hlo.parse(SPLASH.replace("512", "1024")).entry if "fwd" in i.name)
  assert kernels.measure(call, v6e, lambda tile: 1.0).efficiency == 0.26
  call = next(i for i in hlo.parse(SPLASH).entry if "fwd" in i.name)
  assert kernels.measure(call, v6e, lambda tile: 1.0).efficiency == 0.18


@pytest.mark.parametrize(
  "labels, window, left, right, result, pairs",
  [
    ("bf_io->bf", "", (8, 16), (16, 32), (8, 32), 1),
    # A batch of 5 written as a convolution: each tap meets one input.
    ("0bf_0io->0bf", "window={size=5 stride=4 lhs_dilate=5}", (5, 8, 16), (5, 16, 3), (5, 8, 3), 5),
    ("b0f_0io->b0f", "window={size=3 pad=1_1}", (2, 7, 4), (3, 4, 6), (2, 7, 6), 19),
  ],
)
def test_convolutions_count_the_taps_that_meet_an_input(labels, window, left, right, result, pairs):
  # Kills: padding counted, a batched product counted as many times too much as it has rows.
  shape = lambda s: "bf16[" + ",".join(map(str, s)) + "]{0}"
  text = (
    f"ENTRY %main (a: bf16[]) -> bf16[] {{\n  %a = {shape(left)} parameter(0)\n"
    f"  %b = {shape(right)} parameter(1)\n  ROOT %c = {shape(result)} convolution(%a, %b), "
    f"{window + ', ' if window else ''}dim_labels={labels}\n}}\n"
  )
  out = labels.split("->")[1]
  b, f = (result[out.index(c)] for c in "bf")
  contracted = right[labels.split("_")[1].split("->")[0].index("i")]
  assert cost.measure(hlo.parse(text), V5E).flops == 2 * b * f * contracted * pairs


def test_a_text_without_an_entry_is_refused():
  # Kills: an empty program planned as one that takes no time.
  with pytest.raises(ValueError, match="no ENTRY computation in 12 characters"):
    hlo.parse("HloModule x\n")


def test_an_instruction_that_cannot_be_read_is_named():
  # Kills: a line that the parser skips, and with it a loop.
  with pytest.raises(ValueError, match="HLO instruction lost: 'f32"):
    hlo.parse("ENTRY %main (a: f32[]) -> f32[] {\n  %lost = f32[] Parameter\n}\n")
