"""The proxy: an I/O shell around ``router.core``."""

__version__ = "0.1.0"
