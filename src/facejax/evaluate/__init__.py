"""Generated text -> labels -> numbers with intervals."""
