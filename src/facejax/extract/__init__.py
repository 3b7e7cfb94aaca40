"""Completes a dataset once, before training: landmarks, face crops and class maps of its media."""
