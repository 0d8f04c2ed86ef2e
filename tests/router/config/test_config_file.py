import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.loading import MAX_FILE_BYTES, load_config, parse_config
from router.config.structs import (
    Config,
    ConfigError,
    HoldConfig,
    PolicyConfig,
    PollingConfig,
    ReplicaConfig,
    SloConfig,
)

ENVIRON = {"PORT": "8000", "NAME": "gpu", "DIGITS": "0123", "WORD": "many", "YES": "yes"}


def parse(text):
    return parse_config(text, "c.yaml", ENVIRON)


def complaint(text):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_an_empty_file_is_all_defaults():
    assert parse("") == Config()
    assert parse("# nothing\n") == Config()


def test_a_whole_file_becomes_structs():
    config = parse("""
listen: ["0.0.0.0:80", "unix:/run/p.sock"]
replicas:
  - {url: "http://a:1", name: first, engine: vllm}
  - url: http+unix:///run/b.sock
policy: {name: session, options: {load_factor: 1.5}}
aliases: {gpt-4: llama, "a.b": llama}
polling: {interval_s: 1}
seed: 7
""")
    assert config.replicas == [
        ReplicaConfig(url="http://a:1", name="first", engine="vllm"),
        ReplicaConfig(url="http+unix:///run/b.sock"),
    ]
    assert [replica.full_name for replica in config.replicas] == ["first", "unix:/run/b.sock"]
    assert config.policy == PolicyConfig(name="session", options={"load_factor": 1.5})
    assert config.polling == PollingConfig(interval_s=1.0)
    assert config.aliases == {"gpt-4": "llama", "a.b": "llama"}
    assert config.seed == 7


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # keys
        ("polcy: {}", "c.yaml:1: $.polcy: unknown key (did you mean 'policy'?); allowed here: "),
        ("replicas:\n- {}", "c.yaml:2: $.replicas[0]: the key 'url' is missing"),
        (
            "replicas:\n- url: http://a\n  nmae: x",
            "c.yaml:3: $.replicas[0].nmae: unknown key (did you mean 'name'?)",
        ),
        ("seed: 1\nseed: 2", "c.yaml:2: $: the key 'seed' stands here twice, first in line 1"),
        (
            "limits:\n  keep_alive_s: 1\n  keep_alive_s: 1",
            "c.yaml:3: $.limits: the key 'keep_alive_s' stands here twice, first in line 2",
        ),
        ("on: 1", "c.yaml:1: $: the key 'on' is no string; put it in quotes"),
        ("aliases: {1: a}", "c.yaml:1: $.aliases: the key '1' is no string"),
        # kinds
        ("- 1", "c.yaml:1: $: [1] is not allowed; expected a mapping of keys to values, with"),
        ("listen: a:1", "c.yaml:1: $.listen: 'a:1' is not allowed; expected a list"),
        ("\nlisten:\n- 80", "c.yaml:3: $.listen[0]: 80 is not allowed; expected a string"),
        ("replicas: [http://a]", "$.replicas[0]: 'http://a' is not allowed; expected a mapping"),
        ("limits:", "c.yaml:1: $.limits: null is not allowed; expected a mapping"),
        ("seed: 1.5", "$.seed: 1.5 is not allowed; expected a whole number or null"),
        ("aliases: {ok: a, x.y: 1}", "$.aliases.x.y: 1 is not allowed; expected a string"),
        ("log_level: {a: 1}", "$.log_level: {'a': 1} is not allowed; expected a string"),
        # bounds
        ("polling: {interval_s: 0}", "$.polling.interval_s: 0 is not allowed; expected a number >"),
        ("polling: {timeout_s: .inf}", "inf is not allowed; expected a number <= 86400"),
        ("polling: {timeout_s: .nan}", "nan is not allowed; expected a number > 0"),
        ("retry: {max_attempts: 0}", "0 is not allowed; expected a whole number >= 1"),
        ("limits: {max_connections: -1}", "expected a whole number >= 0"),
        # rules
        ("listen: []", "c.yaml:1: $.listen: at least one address is needed"),
        ("admin: x", "c.yaml:1: $.admin: 'x': expected host:port, [v6]:port or unix:/path"),
        ("admin: 127.0.0.1:8080", "$.admin: '127.0.0.1:8080' is taken by $.listen[0] already"),
        ("listen: [a:1, a:1]", "$.listen[1]: 'a:1' is taken by $.listen[0] already"),
        (
            "replicas:\n- name: a\n  url: ftp://x",
            "c.yaml:3: $.replicas[0].url: 'ftp://x': expected",
        ),
        ("replicas: [{url: https://x}]", "$.replicas[0].url: 'https://x': https:// replicas"),
        (
            "replicas:\n- url: http://a:1\n- url: http://a:1",
            "c.yaml:3: $.replicas[1]: 'a:1' is the name of $.replicas[0] already; give them names",
        ),
        (
            "replicas: [{url: http://a, name: x}, {url: http://b, name: x}]",
            "$.replicas[1]: 'x' is the name of $.replicas[0] already",
        ),
        ("replicas: [{url: http://a, name: 'x y'}]", "$.replicas[0].name: 'x y' is no name"),
        (
            "replicas: [{url: http://a, engine: vlm}]",
            "$.replicas[0].engine: 'vlm' is not one of auto, vllm, sglang, tgi, trtllm, llamacpp,",
        ),
        ("log_level: warn", "'warn' is not one of debug, info, warning, error (did you mean 'warn"),
        ("aliases: {a: b, b: c}", "$.aliases.a: 'b' is an alias itself"),
        ("aliases: {a: a}", "$.aliases.a: 'a' is an alias itself"),
        ("aliases: {a: ''}", "$.aliases.a: neither an alias nor its model may be empty"),
        ("policy: {name: ''}", "$.policy: the name is missing"),
        ("forward_paths: [metrics]", "$.forward_paths[0]: 'metrics' is no path"),
        ("forward_paths: ['/a?b']", "$.forward_paths[0]: '/a?b' is no path"),
        ("forward_paths: ['/a%2f']", "$.forward_paths[0]: '/a%2f' is no path"),
        ("forward_paths: ['/a b']", "$.forward_paths[0]: '/a b' is no path"),
        ("forward_paths: ['/*']", "$.forward_paths[0]: '/*': * stands only at the end"),
        ("forward_paths: ['/a*']", "$.forward_paths[0]: '/a*': * stands only at the end"),
        ("forward_paths: ['/a/../b']", "a path has no empty, . or .. segments"),
        ("forward_paths: ['//a']", "a path has no empty, . or .. segments"),
        (
            "limits:\n  max_buffered_bytes: 5",
            "c.yaml:2: $.limits.max_buffered_bytes: must not be less than max_body_bytes",
        ),
        # environment
        ("\nadmin: ${NONE}", "c.yaml:2: $.admin: the environment variable NONE is not set"),
        ("admin: 'x${NAME'", "c.yaml:1: $.admin: a reference has the form ${NAME}"),
        ("admin: ${NAME}", "$.admin: 'gpu': expected host:port, [v6]:port or unix:/path"),
        ("seed: ${WORD}", "$.seed: '${WORD}' is not allowed; expected a whole number or null"),
        ("retry: {max_attempts: ${YES:-}x}", "did not find expected"),
        # YAML
        ("a: [1,", "c.yaml:2: this is not YAML: "),
        ("a: b: c", "c.yaml:1: this is not YAML: mapping values are not allowed"),
        ("---\na: 1\n---\nb: 2", "c.yaml:3: this is not YAML: but found another document"),
        ("a: \x00", "c.yaml: this is not YAML: "),
        ("a: !!python/object:os.system x", "c.yaml:1: this is not YAML: could not determine"),
        ("a: !!set {x}", "c.yaml:1: $.a: the tag tag:yaml.org,2002:set is not allowed"),
        ("a: 2024-99-99", "c.yaml:1: $.a: '2024-99-99' cannot be read: month must be in 1..12"),
        ("a: &x [*x]", "c.yaml:1: $.a[0]: an alias stands inside of what it is an alias for"),
        ("a: *x", "c.yaml:1: this is not YAML: found undefined alias"),
        ("[" * 5000, "c.yaml:1: this is not YAML: exceeded maximum nesting depth"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_and_what_is_allowed(text, line):
    assert line in complaint(text)


@pytest.mark.parametrize("value", ["${PORT}", '"${PORT}"', "'${PORT}'", "${NONE:-8000}"])
def test_a_number_from_the_environment_is_a_number_where_one_is_wanted(value):
    assert parse(f"limits:\n  max_connections: {value}").limits.max_connections == 8000


def test_a_string_from_the_environment_is_a_string_where_one_is_wanted():
    assert parse("policy:\n  name: ${DIGITS}").policy.name == "0123"
    assert parse("policy:\n  name: ${YES}").policy.name == "yes"
    config = parse('replicas: [{url: "http://${NAME}:${PORT}"}]')
    assert config.replicas == [ReplicaConfig(url="http://gpu:8000")]


def test_an_option_from_the_environment_is_read_as_yaml_reads_it():
    options = parse("policy:\n  options:\n    a: ${PORT}\n    b: '${PORT}'\n    c: ${WORD}")
    assert options.policy.options == {"a": 8000, "b": "8000", "c": "many"}


def test_an_empty_default_is_null():
    assert parse("seed: ${NONE:-}").seed is None


def test_keys_are_not_expanded():
    assert parse("aliases:\n  ${PORT}: a").aliases == {"${PORT}": "a"}


def test_the_value_of_a_variable_is_not_shown_where_it_has_the_wrong_kind():
    assert "many" not in complaint("seed: ${WORD}")


def test_merge_keys_and_aliases_work_also_when_used_twice():
    config = parse("""
replicas:
  - &base {url: "http://a:1", engine: sglang}
  - &second {<<: *base, url: "http://b:1"}
  - {<<: *second, url: "http://c:1"}
aliases: &names {a: m}
policy: {name: x, options: *names}
""")
    assert [(r.url, r.engine) for r in config.replicas] == [
        ("http://a:1", "sglang"),
        ("http://b:1", "sglang"),
        ("http://c:1", "sglang"),
    ]
    assert config.policy.options == config.aliases == {"a": "m"}


def test_a_few_lines_cannot_make_millions_of_values():
    text = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
    text += "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 10))
    assert "there are more than 100000 values" in complaint(text)


def test_control_characters_do_not_reach_the_terminal():
    assert "$.a\\n\\x1b[2J: unknown key" in complaint('"a\\n\\e[2J": 1')


def test_a_long_value_is_cut():
    assert len(complaint(f"seed: {'x' * 5000}")) < 200


def test_five_thousand_replicas_load():
    text = "replicas:\n" + "".join(f"- url: http://gpu-{i}:8000\n" for i in range(5000))
    assert len(parse(text).replicas) == 5000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["listen", "replicas", "url", "policy", "name", "x", ""]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_data_loads_or_is_a_config_error(value):
    text = msgspec.json.encode(value).decode()  # JSON is YAML
    try:
        config = parse(text)
    except ConfigError as error:
        assert re.fullmatch(r"c\.yaml.*", str(error))  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(config, Config)


@given(st.text(alphabet="abl:[]{}&*!|>'\"%@`$ \n-#?,\t1.~<", max_size=40))
def test_any_text_loads_or_is_a_config_error(text):
    try:
        config = parse(text)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(config, Config)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{default: fast}", "$.slo.default: 'fast' is no objective (ttft, tpot, e2e); write "),
        ("{default: 'e2e=3s'}", "$.slo.default: e2e is no objective of a request; ttft and tpot "),
        ("{models: {m: 'ttft=2'}}", "$.slo.models.m: ttft=2 is no time limit; write for example "),
        ("{models: {'': none}}", "$.slo.models: '' is not a model that replicas serve"),
        ("{models: {a: none}}", "$.slo.models: 'a' is not a model that replicas serve but an al"),
        ("{classes: {b: 'tpot=0ms'}}", "$.slo.classes.b: tpot=0ms: nothing is that fast; the "),
        ("{classes: {'a b': none}}", "$.slo.classes: 'a b' is no name of a class: letters, "),
        ("{classes: [none]}", "$.slo.classes: ['none'] is not allowed; expected a mapping of "),
    ],
)
def test_objectives_that_are_none_are_refused(text, line):
    assert complaint(f"aliases: {{a: m}}\nslo: {text}").startswith(f"c.yaml:2: {line}")


def test_objectives_holds_and_tenants_are_read():
    config = parse("""
slo: {default: none, models: {m: "tpot=30ms"}, classes: {}}
hold: {enabled: false, max_requests: 5, max_tokens: 100, outage_s: 0}
tenant_header: X-Tenant
isolate_tenants: false
""")
    assert config.slo == SloConfig(default="none", models={"m": "tpot=30ms"}, classes={})
    assert config.hold == HoldConfig(enabled=False, max_requests=5, max_tokens=100, outage_s=0)
    assert (config.tenant_header, config.isolate_tenants) == ("X-Tenant", False)
    assert complaint("tenant_header: 'x tenant'").startswith(
        "c.yaml:1: $.tenant_header: 'x tenant' is"
    )
    assert complaint("hold: {max_requests: 0}").startswith(
        "c.yaml:1: $.hold.max_requests: 0 is not"
    )


def test_a_file_is_loaded_with_the_environment_of_the_process(tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text("admin: ${POINTSMAN_TEST_ADMIN}\n")
    monkeypatch.setenv("POINTSMAN_TEST_ADMIN", "127.0.0.1:7")
    assert load_config(file).admin == "127.0.0.1:7"
    assert load_config(file, {"POINTSMAN_TEST_ADMIN": "127.0.0.1:8"}).admin == "127.0.0.1:8"


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xef\xbb\xbfseed: 3\n")
    assert load_config(file).seed == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"seed: 1\n# \xff\n", ":2: this is not UTF-8"), (b"#" * (MAX_FILE_BYTES + 1), ": larger ")],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, content, says):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}{says}")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load_config(Path(tmp_path))
