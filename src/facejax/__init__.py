"""facejax: multimodal large language models of the human face, in JAX."""
