"""facejax: multimodal large language models of the human face, in JAX."""

from facejax import libtpu

libtpu.quiet()  # before anything asks JAX for devices
