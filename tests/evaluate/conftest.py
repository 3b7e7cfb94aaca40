"""The simulated judge and its endpoint are the experiments'."""

import pathlib
import sys

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
sys.path[:0] = [str(EXPERIMENTS / "annotate"), str(EXPERIMENTS / "judge")]
