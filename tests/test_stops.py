"""Why a run stops, and what it says then."""

import dataclasses
import os
import re
import signal

import numpy as np
import pytest
import tiny_run

from facejax import checkpoint, logs, train
from facejax.data.refused import TooManyRefused
from facejax.signals import StopRequest
from facejax.types import Refusal

CONFIG = tiny_run.config(steps=4)


def test_a_second_signal_interrupts():
  """Kills: a run that hangs in a save and cannot be stopped."""
  with pytest.raises(KeyboardInterrupt, match="a second time"), StopRequest() as stop:
    assert not stop.requested(1)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested(1)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()


class Poisoned(tiny_run.FakePipeline):
  """Batch 2 (step 3) has an infinite weight: loss and gradients are no numbers."""

  def batch(self, step):
    batch, refused = super().batch(step)
    if step == 2:
      batch = batch.replace(loss_weights=np.where(batch.loss_weights > 0, np.float32(np.inf), 0))
    return batch, refused


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
  """Kills: hours of nan; a poisoned checkpoint; a message without step, samples or a way back."""
  with pytest.raises(train.NonFiniteLoss) as caught:
    tiny_run.run(tmp_path, CONFIG, Poisoned, stages=["base"])
  text = str(caught.value)
  assert re.match(r"stage base, step 3: loss nan, grad_norm nan, .* - expected finite", text)
  broken = Poisoned(CONFIG.model, CONFIG.data, tiny_run.ROWS)
  ids = sorted(set(broken.batch(2)[0].sample_id.flatten()) - {-1})
  names = ", ".join(f"sample-{i}" for i in ids)
  assert f"samples of the batch: {names} - last good checkpoint: " in text
  assert f"last good checkpoint: {tmp_path}/base/checkpoints/2 - " in text
  assert text.endswith("then --resume --allow-change=stages.base.optim")
  assert checkpoint.steps_in(tmp_path / "base") == [2]
  slower = dataclasses.replace(CONFIG.stages["base"].optim, peak_lr=1e-5)
  base = dataclasses.replace(CONFIG.stages["base"], optim=slower)
  lower = dataclasses.replace(CONFIG, stages={**CONFIG.stages, "base": base})
  allow = ["stages.base.optim"]  # what the message says goes on
  assert tiny_run.run(tmp_path, lower, stages=["base"], resume=True, allow_change=allow) == 0
  first = dataclasses.replace(CONFIG, checkpoint_every=99)
  with pytest.raises(train.NonFiniteLoss, match="last good checkpoint: none yet"):
    tiny_run.run(tmp_path / "b", first, Poisoned, stages=["base"])


class Crash(RuntimeError):
  """The process dies."""


class Refusing(tiny_run.FakePipeline):
  """One sample was refused before the first step, and one in each batch is."""

  refusals = (Refusal("early", "no such file"),)

  def batch(self, step):
    return super().batch(step)[0], (Refusal(f"bad-{step}", "broken JPEG"),)


def test_refused_samples_are_listed_once(tmp_path):
  """Kills: a refusal lost, or listed again by a resumed run; a limit that one file passes."""

  class Dying(Refusing):
    def batch(self, step):
      if step == 3:
        raise Crash
      return super().batch(step)

  with pytest.raises(Crash):
    tiny_run.run(tmp_path, CONFIG, Dying, stages=["base"])
  assert tiny_run.run(tmp_path, CONFIG, Refusing, stages=["base"], resume=True) == 0
  records = logs.read_until(tmp_path / "base" / "refused.jsonl", 99)
  assert records[0] == {"step": 0, "id": "early", "reason": "no such file"}
  assert [(r["step"], r["id"]) for r in records[1:]] == [(n + 1, f"bad-{n}") for n in range(4)]


def test_too_many_refused_samples_stop_the_run(tmp_path):
  """Kills: a run on the tenth of the data that can be read; a count that a resume forgets."""
  limit = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, max_refused=0.0021))
  with pytest.raises(TooManyRefused) as caught:
    tiny_run.run(tmp_path, limit, Refusing, stages=["base"])
  text = str(caught.value)
  assert text.startswith("3 of 48 samples refused by step 3 - expected at most ")
  assert "data.max_refused=0.0021 of 1000 - latest: bad-2: broken JPEG - all are in" in text
  with pytest.raises(TooManyRefused, match="3 of 48 samples"):
    tiny_run.run(tmp_path, limit, Refusing, stages=["base"], resume=True)
