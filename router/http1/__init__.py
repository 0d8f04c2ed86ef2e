"""A strict HTTP/1.1 codec without I/O: bytes in, heads and body pieces out."""
