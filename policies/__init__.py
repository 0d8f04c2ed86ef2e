"""Ground floor: the vocabulary that a policy sees, and the policies. Imports nothing above it."""
