"""Continuing a broken stream on another replica, over plain HTTP (no I/O, no clock).

How an answer goes on, by the engine of the replica that takes over:

============  =============================  =======================================================
engine        ``/v1/completions``            ``/v1/chat/completions``
============  =============================  =======================================================
vLLM          by tokens                      by tokens, as a completion; with stop strings (unless
                                             the temperature is 0), tools or images: by text
SGLang        by tokens, where it tells      by text
              them (``return_token_ids``)
TGI           by text                        by text (it always goes on with a last message of the
                                             assistant)
llama.cpp     by text                        by text
TensorRT-LLM  by text                        no: it has no ``continue_final_message``
unknown       by text                        no
============  =============================  =======================================================

and SGLang's ``/generate``, TGI's ``/generate_stream`` and llama.cpp's ``/completion`` by text, on
their own engine (``/generate`` of ``input_ids`` by tokens).

*By tokens* is exact: the prompt's tokens and the answer's are the next prompt. vLLM is asked for
them (``return_token_ids``), and what the client did not ask for is taken out again. *By text*, what
the client has is the beginning of the assistant's message (``continue_final_message: true`` with
``add_generation_prompt: false``: with stock engines neither alone is enough) or the end of the
prompt. The model then reads its own words tokenised anew, which is nearly always, but not provably,
what it wrote; the number of tokens made so far is that of the events, which may be a few too low
when an engine puts several tokens in one, and so may be the answer's length too high by as many.

Penalties for presence and frequency, and a seed, count from the seam on: the text stays sensible,
but it is not the text that an unbroken stream would have had. A prompt that was sent as token ids
goes on by tokens only.

What is not continued, and why (``Reason``, counted): other paths (``api``), several choices
(``choices``, ``beams``, ``batch``), log probabilities (``logprobs``), grammars, schemas and forced
tools (``guided``), ``echo``, ``suffix``, cut prompts (``truncation``), regular expressions that
stop (``stop_pattern``), data beside the text (``extras``), answers between a prefill and a decode
replica (``disaggregated``); a tool call (``tool_call``) or reasoning (``reasoning``) that has
begun; an engine without a way (``engine``); what cannot be read (``unreadable_request``,
``unreadable_stream``); what outgrew the memory set aside (``stream_bytes``, ``total_bytes``).
An answer of which nothing had come is sent anew, whatever it is, if its request is continued at
all.
"""
