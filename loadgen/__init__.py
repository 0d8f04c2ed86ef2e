"""The load lab: traces, replay, simulated replicas. Imports the core of the router at most."""
