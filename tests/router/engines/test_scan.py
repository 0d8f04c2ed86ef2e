from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from router.engines.scan import has_prefix, series


def test_a_metric_is_found_on_the_first_a_middle_and_the_last_line():
    page = b"a 1\nb 2\nc 3"
    assert [series(page, name)[0].value for name in (b"a", b"b", b"c")] == [1, 2, 3]


def test_only_the_whole_name_counts():
    page = b"load_total 5\nload_by_reason 6\nmy:load 7\nload 8\nload_created 9\n"
    assert [line.value for line in series(page, b"load")] == [8]


def test_a_name_matches_at_the_start_of_a_line_only():
    page = b'# HELP load The load 3\n# TYPE load gauge\nother{what="load 4"} 1\n'
    assert series(page, b"load") == []


def test_several_label_sets_come_in_their_order():
    page = b'x 0\nload{r="0"} 1\nload{r="1"} 2\ny 0\n'
    assert [(line.labels, line.value) for line in series(page, b"load")] == [
        ({"r": "0"}, 1.0),
        ({"r": "1"}, 2.0),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2.0),
        ("2.5e3", 2500.0),
        ("-1.0E-2", -0.01),
        ("+Inf", math.inf),
        ("-Inf", -math.inf),
        (" 7 1700000000000", 7.0),
        ("\t7\t-1", 7.0),
        ("7\r", 7.0),
        ('7 # {trace_id="x"} 0.5', 7.0),
    ],
)
def test_values_of_every_form(text, value):
    assert series(f'load{{a="b"}} {text}\n'.encode(), b"load")[0].value == value
    assert series(f"load {text}\n".encode(), b"load")[0].value == value


def test_nan_is_a_value():
    assert math.isnan(series(b"load NaN\n", b"load")[0].value)


@pytest.mark.parametrize(
    "line",
    [
        "load ",
        "load{}",
        "load x",
        "load 1_000",
        "load 0x10",
        'load{a="b',
        'load{a="b} 3',
        "load{ 3",
    ],
)
def test_a_line_without_a_number_is_an_error_that_shows_it(line):
    with pytest.raises(ValueError, match="no number on the line 'load"):
        series(f"x 1\n{line}\ny 2\n".encode(), b"load")


def test_a_long_broken_line_is_cut_in_the_message():
    with pytest.raises(ValueError, match="no number") as caught:
        series(b"load " + b"x" * 10_000, b"load")
    assert len(str(caught.value)) < 120


def test_braces_and_quotes_within_label_values():
    page = rb'load{a="x} 1",b="y\"} 2",c="\\"} 3' + b"\n"
    (line,) = series(page, b"load")
    assert line.value == 3
    assert line.labels == {"a": "x} 1", "b": 'y"} 2', "c": "\\"}


def test_a_label_value_that_looks_like_another_label():
    (line,) = series(b'info{a=",block_size=",block_size="16"} 1\n', b"info")
    assert line.labels == {"a": ",block_size=", "block_size": "16"}


def test_prefixes_are_seen_at_line_starts_only():
    assert has_prefix(b"vllm:x 1\n", b"vllm:")
    assert has_prefix(b"y 1\nvllm:x 1\n", b"vllm:")
    assert not has_prefix(b"# HELP vllm:x\n", b"vllm:")


@given(st.binary(max_size=200), st.sampled_from([b"a", b"load"]))
def test_garbage_never_crashes(page, name):
    try:
        lines = series(page + b"\n" + name + b"{" + page, name)
    except ValueError:
        return
    for line in lines:
        assert isinstance(line.value, float)
        assert all(isinstance(value, str) for value in line.labels.values())


NAMES = st.from_regex(r"[a-c_:][a-c0-9_:]{0,4}", fullmatch=True)
LABEL_NAMES = st.from_regex(r"[a-c][a-c0-9_]{0,3}", fullmatch=True)
LABEL_VALUES = st.text(
    st.one_of(st.sampled_from('\\"\n{},= #ab'), st.characters(codec="utf-8", categories=["L"])),
    max_size=8,
)
VALUES = st.one_of(
    st.integers(-(10**6), 10**18).map(str),
    st.floats().map(repr),
    st.sampled_from(["NaN", "+Inf", "-Inf", "Inf", "1e+09", "1E-7"]),
)


@st.composite
def lines_of(draw, name):
    label_sets = draw(st.lists(st.dictionaries(LABEL_NAMES, LABEL_VALUES, max_size=3), max_size=4))
    lines = []
    for labels in label_sets:
        comma = draw(st.sampled_from(["", ","])) if labels else ""
        body = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
        braces = f"{{{body}{comma}}}" if labels or draw(st.booleans()) else ""
        stamp = draw(st.sampled_from(["", " 1700000000000", " -5"]))
        lines.append(f"{name}{braces} {draw(VALUES)}{stamp}")
    return lines


def _escaped(value):
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@st.composite
def pages(draw):
    lines = []
    for name in draw(st.lists(NAMES, unique=True, min_size=1, max_size=5)):
        if draw(st.booleans()):
            lines += [f"# HELP {name} About {name} 1", f"# TYPE {name} gauge"]
        if draw(st.booleans()):
            lines.append("")
        lines += draw(lines_of(name))
    return "\n".join(lines) + "\n"


@given(pages())
def test_it_reads_what_prometheus_own_parser_reads(page):
    theirs = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            # Values are float64 by the format; their parser keeps long integers whole.
            theirs.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    data = page.encode()
    for name in theirs.keys() | {"a", "b", "absent"}:
        ours = [(line.labels, line.value) for line in series(data, name.encode())]
        expected = theirs.get(name, [])
        assert [labels for labels, _ in ours] == [labels for labels, _ in expected]
        for (_, value), (_, wanted) in zip(ours, expected, strict=True):
            assert value == wanted or (math.isnan(value) and math.isnan(wanted))
