"""Released layouts -> ArrayRecord shards with a manifest -> samples by index."""
