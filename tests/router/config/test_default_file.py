import msgspec
import pytest
import yaml

from router.config import resilience, splitting, structs
from router.config.defaultfile import WIDTH, default_file, field_docs
from router.config.loading import parse_config
from router.config.structs import Config, ReplicaConfig

STRUCTS = [
    value
    for module in (structs, resilience, splitting)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct)
]


def test_the_default_file_loads_to_the_defaults():
    assert parse_config(default_file(), "default", {}) == Config()


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_is_documented_and_printed(struct):
    docs = field_docs()[struct.__name__]
    text = " ".join(default_file().replace("#", " ").split())
    for field in msgspec.structs.fields(struct):
        assert " ".join(docs[field.name].split()) in text
        assert f"{field.name}:" in text


def test_every_key_is_in_the_file_itself():
    def keys(value):
        return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None

    written = keys(yaml.safe_load(default_file()))
    assert written == keys(msgspec.to_builtins(Config()))


def test_the_example_of_a_replica_loads_when_it_takes_the_place_of_the_empty_list():
    head, _, example = default_file().partition("replicas: []\n")
    lines = example.split("\n\n")[0].splitlines()[1:]
    entry = "\n".join(line.removeprefix("# ") for line in lines)
    loaded = parse_config(f"{head}replicas:\n{entry}\n", "example", {})
    assert loaded.replicas == [ReplicaConfig(url="http://127.0.0.1:8000")]


def test_lines_are_short():
    assert max(map(len, default_file().splitlines())) <= WIDTH + 2
