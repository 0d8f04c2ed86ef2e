"""Traces: when requests arrive and how long they are. No text, no I/O but reading files."""
