"""Continuing a broken stream on another replica (no I/O, no clock)."""
