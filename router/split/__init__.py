"""How engines are asked to split a request over two replicas (no I/O, no clock).

What each dialect needs to be told, and when:

=========  ===================  =======================================  ==========================
dialect    legs                 links the two                            roles serve whole requests
=========  ===================  =======================================  ==========================
nixl       prefill, then decode the prefill's ``kv_transfer_params``     yes
mooncake   both at once         a ``transfer_id`` that the router makes  yes
p2p        prefill, then decode addresses in ``X-Request-Id``            no
sglang     both at once         a ``bootstrap_room`` of the router's     no
trtllm     prefill, then decode the prefill's ``disaggregated_params``   yes
=========  ===================  =======================================  ==========================

nixl, mooncake and p2p are connectors of vLLM. The client's answer is the decode replica's; what the
prefill replica answers is read for what links the two, and dropped.

Not split, for the engines cannot or would answer otherwise: several answers to one prompt, log
probabilities of the prompt, ``echo``, prompts that are not text or token ids alone for SGLang's own
endpoint, and requests that name a transfer of their own.
"""
