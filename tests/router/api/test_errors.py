import json

from router.api.errors import error_body, error_event
from router.api.routes import Dialect


def test_openai_shape():
    body = json.loads(error_body(Dialect.OPENAI, 404, "model_not_found", "No `m`.", "model"))
    assert body == {
        "error": {
            "message": "No `m`.",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert json.loads(error_body(Dialect.OPENAI, 502, "c", "m"))["error"]["type"] == "server_error"


def test_anthropic_shape():
    body = json.loads(error_body(Dialect.ANTHROPIC, 503, "no_replica_ready", "Wait."))
    assert body == {"type": "error", "error": {"type": "overloaded_error", "message": "Wait."}}


def test_events_begin_on_a_fresh_line():
    assert error_event(Dialect.OPENAI, "c", "m").startswith(b'\n\ndata: {"error":')
    assert error_event(Dialect.ANTHROPIC, "c", "m").startswith(b"\n\nevent: error\ndata: {")
