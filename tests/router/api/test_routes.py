import pytest

from router.api.routes import BodyFormat, Dialect, Routes


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (b"/v1/chat/completions", BodyFormat.JSON),
        (b"/v1/%63hat/completions", BodyFormat.JSON),
        (b"/v1/chat/completions/", BodyFormat.JSON),
        (b"/v1/audio/transcriptions", BodyFormat.MULTIPART),
        (b"/tokenize", BodyFormat.JSON),
        (b"/generate", BodyFormat.JSON),
        (b"/v1/files", BodyFormat.OPAQUE),
        (b"/v1//files/a%2Fb//c", BodyFormat.OPAQUE),
    ],
)
def test_forwarded(path, body):
    route = Routes([]).find(path)
    assert route is not None
    assert route.body is body


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/v1",
        b"/v1/",
        b"/v1//",
        b"/sleep",
        b"/metrics",
        b"/server_info",
        b"/flush_cache",
        b"/load_lora_adapter",
        b"//v1/completions",
        b"//sleep",
        b"/sleep/",
        b"/%73leep",
        b"/./sleep",
        b"/v1/../sleep",
        b"/v1/..%2fsleep",
        b"/v1/%2e%2e/sleep",
        b"/v1/..\\sleep",
        b"/v1/%252e%252e/sleep",
        b"/v1/load_lora_adapter",
        b"/v1/LOAD_LORA_ADAPTER",
        b"/v1/load%5Flora_adapter",
        b"/v1/load%255Flora_adapter",
        b"/v1//load_lora_adapter/",
        b"/v1/./load_lora_adapter",
        b"/v1/x/../load_lora_adapter",
        b"/v1/load_lora_adapter;x=1",
        b"/v1/load_lora_adapter%20",
        b"/v1/chat/completions/../../../metrics",
        b"/tokenize/",
        b"*",
    ],
)
def test_not_forwarded(path):
    assert Routes([]).find(path) is None


def test_forward_paths():
    routes = Routes(["/server_info", "/plugin/*", "/v1/load_lora_adapter"])
    assert routes.find(b"/server_info") is not None
    assert routes.find(b"/server_info/x") is None
    assert routes.find(b"/plugin/a/b") is not None
    assert routes.find(b"/plugin/") is not None
    assert routes.find(b"/v1/load_lora_adapter") is not None
    for path in (b"/plugin", b"/plugin/../sleep", b"/plugin/%2e%2e/sleep", b"/plugin/..;/sleep"):
        assert routes.find(path) is None


def test_what_the_path_says():
    route = Routes([]).find(b"/v1/models/org%2Fname")
    assert route is not None
    assert route.model == "org/name"
    route = Routes([]).find(b"/v1/messages")
    assert route is not None
    assert route.dialect is Dialect.ANTHROPIC
