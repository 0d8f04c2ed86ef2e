"""One module for each engine that a simulated replica can pass itself off as."""
