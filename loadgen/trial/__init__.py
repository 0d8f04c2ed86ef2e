"""Policies side by side: a trace through a router and simulated replicas, all real processes."""
