"""A continuous-batching inference engine in virtual time: no I/O, no asyncio, no clock.

It is what stands behind the simulated replica and behind the simulator, and follows vLLM V1:
chunked prefill under a token budget, paged KV with preemption by recompute, a prefix cache of
full blocks, first come first served.

From the ground up: ``block_pool`` counts KV blocks, ``kv_cache`` gives them to sequences,
``decodes`` advances all decoding sequences at once, ``batch`` chooses who takes part in a step,
``cost`` says how long it takes (constants in ``profile``), ``run`` puts equal steps into closed
form, and ``engine`` is the whole. ``language_model`` is what it says.
"""
