"""``make demo``: a simulated fleet, a real trace, several policies, one killed replica."""
