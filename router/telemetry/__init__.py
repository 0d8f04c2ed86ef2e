"""Metrics: what is counted on the way, and what is read only when somebody asks."""
