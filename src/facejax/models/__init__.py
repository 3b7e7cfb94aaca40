"""Batch -> logits: only math."""
