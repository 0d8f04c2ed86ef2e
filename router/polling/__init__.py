"""Watching the replicas: their load, their health and their models."""
