"""The data plane: client connections, upstream connections, and the relay between them."""
