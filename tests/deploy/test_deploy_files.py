import configparser
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from router.addresses import parse_address
from router.cli import root as cli
from router.config.loading import load_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


class Unit(configparser.RawConfigParser):
    """A systemd unit; the keys that may stand there twice are joined."""

    def __init__(self):
        super().__init__(strict=True, delimiters=["="], comment_prefixes=["#"])
        text = (DEPLOY / "pointsman.service").read_text()
        self.read_string(text.replace("\nSystemCallFilter=~", "\nSystemCallFilter2=~"))

    def optionxform(self, optionstr):
        return optionstr


@pytest.fixture
def unit():
    return Unit()["Service"]


@pytest.fixture
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def parsed(words):
    """The options of a command line of ours; fails when a command or a flag does not exist."""
    name, *arguments = words
    context = click.Context(cli.root, info_name="pointsman")
    command = cli.root.get_command(context, name)
    assert command is not None, f"there is no command {name}"
    options, rest, _ = command.make_parser(click.Context(command)).parse_args(list(arguments))
    assert rest == []
    return options


@pytest.mark.parametrize("name", ["config.yaml", "compose-config.yaml"])
def test_example_configurations_load(name):
    config = load_config(DEPLOY / name, {})
    assert len(config.replicas) == 3


def test_the_admin_plane_of_the_example_is_on_loopback():
    assert parse_address(load_config(DEPLOY / "config.yaml", {}).admin).loopback


def test_the_unit_calls_a_command_that_exists(unit):
    program, *words = shlex.split(unit["ExecStart"])
    assert Path(program) == Path("/opt/pointsman/bin/pointsman")
    options = parsed(words)
    assert options["path"] == "/etc/pointsman/config.yaml"
    assert int(unit["TimeoutStopSec"]) > float(options["grace_s"])


def test_the_unit_is_hardened_and_does_not_repeat_a_mistake(unit):
    expected = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "CapabilityBoundingSet": "",
        "SystemCallFilter": "@system-service",
        "KillSignal": "SIGTERM",
        "RestartPreventExitStatus": str(cli.USAGE_ERROR),
    }
    assert {key: unit[key] for key in expected} == expected
    assert int(unit["LimitNOFILE"]) >= 65536


def test_the_services_of_compose_call_commands_that_exist(compose):
    services = compose["services"]
    assert {name: service["command"][0] for name, service in services.items()} == {
        "replica-1": "replica",
        "replica-2": "replica",
        "replica-3": "replica",
        "router": "serve",
    }
    for service in services.values():
        parsed(service["command"])


def test_the_router_of_compose_knows_its_replicas_and_waits_for_them(compose):
    config = load_config(DEPLOY / "compose-config.yaml", {})
    port = parsed(compose["services"]["replica-1"]["command"])["port"]
    urls = [f"http://{name}:{port}" for name in compose["services"] if name != "router"]
    assert [replica.url for replica in config.replicas] == urls
    assert list(compose["services"]["router"]["depends_on"]) == [r.name for r in config.replicas]


def test_compose_publishes_only_what_the_router_listens_on_and_only_here(compose):
    config = load_config(DEPLOY / "compose-config.yaml", {})
    listening = {parse_address(text).port for text in (*config.listen, config.admin)}
    published = [port.split(":") for port in compose["services"]["router"]["ports"]]
    assert {int(inside) for _, _, inside in published} == listening
    assert {host for host, _, _ in published} == {"127.0.0.1"}


def test_every_service_is_hardened_and_watched(compose):
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["healthcheck"]["test"][:2] == ["CMD", "python"]
        compile(service["healthcheck"]["test"][3], "healthcheck", "exec")
    assert [name for name, service in compose["services"].items() if "ports" in service] == [
        "router"
    ]


def test_the_container_file_copies_what_the_wheel_is_made_of():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*wheel, "pyproject.toml", project["project"]["readme"], "LICENSE"} <= copied
    for path in copied - {"--from=build", "/opt/pointsman"}:
        assert (ROOT / path).exists(), path


def test_the_container_is_not_root_and_calls_a_command_that_exists():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    last = {line.split()[0]: line.partition(" ")[2] for line in lines if re.match(r"[A-Z]+ ", line)}
    assert last["USER"] == "65532:65532"
    assert yaml.safe_load(last["ENTRYPOINT"]) == ["pointsman"]
    assert parsed(yaml.safe_load(last["CMD"]))["path"] == "/etc/pointsman/config.yaml"


def test_the_readme_names_files_that_exist():
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    assert named == {path.name for path in DEPLOY.iterdir()} - {"README.md"}
