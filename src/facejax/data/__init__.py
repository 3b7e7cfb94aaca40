"""Files -> Batch, a pure function of the step."""
