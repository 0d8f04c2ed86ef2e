"""What each engine calls its gauges, and where it tells its health."""
