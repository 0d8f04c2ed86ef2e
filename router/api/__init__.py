"""What the router understands of the inference APIs: paths, bodies, errors. No I/O."""
