"""One simulated replica goes on with what another one began, asked as the router asks."""

import json

import pytest

from router.continuation.budget import Budget
from router.continuation.continuation import Continuation, Ending
from router.continuation.eligibility import judge
from router.continuation.resume import Resume
from router.continuation.wish import Wish

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
BODIES = {
    "chat": (CHAT, {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 30}),
    "chat without a limit": (CHAT, {"messages": [{"role": "user", "content": "So?"}]}),
    "completion": (TEXT, {"prompt": "Tell me a story", "max_tokens": 30}),
    "tokens": (TEXT, {"prompt": [11, 12, 13], "max_tokens": 30}),
    "default limit": (TEXT, {"prompt": "Tell me"}),
    "at least": (TEXT, {"prompt": "A b c d", "max_tokens": 20, "min_tokens": 15}),
    "generate": ("/generate", {"text": "Tell me", "sampling_params": {"max_new_tokens": 20}}),
    "generate_stream": (
        "/generate_stream",
        {"inputs": "Tell me", "parameters": {"max_new_tokens": 20, "details": True}},
    ),
}
CASES = [
    ("vllm", "chat"),
    ("vllm", "chat without a limit"),
    ("vllm", "completion"),
    ("vllm", "tokens"),
    ("vllm", "default limit"),
    ("vllm", "at least"),
    ("sglang", "chat"),
    ("sglang", "completion"),
    ("sglang", "generate"),
    ("tgi", "chat"),
    ("tgi", "generate_stream"),
    ("llamacpp", "chat"),
    ("llamacpp", "completion"),
]


async def read(client, path, body):
    async with client.session.post(client.url + path, data=body) as response:
        assert response.status == 200, await response.text()
        return await response.read()


def text_of(path, data):
    said = [
        json.loads(line[5:])
        for line in data.splitlines()
        if line.startswith((b"data: {", b"data:{"))
    ]
    if path == "/generate":
        return said[-1]["text"]
    if path == "/generate_stream":
        return said[-1]["generated_text"]
    choices = [choice for event in said for choice in event["choices"]]
    return "".join(c["delta"].get("content", "") if path == CHAT else c["text"] for c in choices)


@pytest.mark.parametrize(("engine", "case"), CASES)
async def test_a_broken_answer_reads_like_an_unbroken_one(start, engine, case):
    first, second = await start(engine=engine), await start(engine=engine)
    path, fields = BODIES[case]
    body = json.dumps(
        {"stream": True, "stream_options": {"include_usage": True}, **fields}
    ).encode()
    unbroken = await read(first, path, body)
    for share in (0.0, 0.1, 0.4, 0.7, 0.95, 0.99):
        wish = judge(path.encode(), body)
        assert isinstance(wish, Wish), wish
        continuation = Continuation(wish, Budget(1 << 24), 1 << 20)
        stream = await read(first, path, continuation.start(engine))
        got = continuation.passed(stream[: int(len(stream) * share)])
        resumed = continuation.resume(engine)
        if isinstance(resumed, Ending):
            got += resumed.data
        else:
            assert isinstance(resumed, Resume), resumed
            onward = (resumed.path or path.encode()).decode()
            got += continuation.passed(await read(second, onward, resumed.body))
            assert continuation.complete
        assert text_of(path, got) == text_of(path, unbroken)
        assert got.count(b"[DONE]") == unbroken.count(b"[DONE]")
