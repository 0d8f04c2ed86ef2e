"""The admin plane: a small HTTP server of its own, for operators and for Prometheus."""
