"""Official Face-LLaVA's numbers against this library's: one module for each part of the model."""
