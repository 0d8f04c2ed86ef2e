"""KV that moves between simulated replicas: who keeps it, who fetches it, and in whose words.

A prefill replica keeps the blocks of a prompt under a key. A decode replica holds a request open
at ``/kv/KEY`` there from when it hears of the prompt (which stands for the heartbeats of a real
connector), waits for room of its own and for the time that the transfer takes, and lets go of the
key with ``DELETE``. Whoever dies or leaves in between lets a lease begin; when it is over the
blocks are free.
"""
