import pytest

from router.config.loading import parse_config
from router.config.structs import ConfigError


def parse(value):
    return parse_config(f"replicas: [{{url: 'http://a:1', kv_events: '{value}'}}]", "c.yaml", {})


@pytest.mark.parametrize(
    "value", ["", "tcp://10.0.0.5:5557", "tcp://gpu-0:5557", "tcp://[::1]:5557", "ipc:///run/kv"]
)
def test_endpoints(value):
    assert parse(value).replicas[0].kv_events == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("10.0.0.5:5557", "expected tcp://host:port or ipc:///path"),
        ("http://a:5557", "expected tcp://host:port or ipc:///path"),
        ("ipc://run/kv", "expected tcp://host:port or ipc:///path"),
        ("tcp://*:5557", "no host name"),
        ("tcp://a", "host:port"),
        ("tcp://a:0", "port of the replica is missing"),
        ("tcp://unix:/x", "port of the replica is missing"),
        ("tcp://a:99999", "no number from"),
    ],
)
def test_what_is_no_endpoint(value, why):
    with pytest.raises(ConfigError, match=why) as error:
        parse(value)
    assert "c.yaml:1: $.replicas[0].kv_events: " in str(error.value)
