"""Reads a dataset once, says what is wrong with it, and lists what training must leave out."""
