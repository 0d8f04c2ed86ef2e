"""The replay client: sends a trace to a server, open loop, and measures what comes back."""
