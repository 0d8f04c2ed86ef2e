"""What engines publish of their prefix caches over ZMQ, told to the prefix index."""
