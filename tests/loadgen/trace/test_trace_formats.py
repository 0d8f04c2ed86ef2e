"""Reading trace files of every format, plain and zipped, good and bad."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.trace import own
from loadgen.trace.errors import TraceError
from loadgen.trace.reading import read_trace
from loadgen.trace.request import Trace, TraceRequest

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n"
    "2023-11-16 18:17:04.0319607,3180,8\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 2999, "input_length": 581, "output_length": 43, "client_id": 104}\n'
)
OWN = (
    '{"format": "pointsman-trace", "version": 1}\n'
    '{"arrival_s": 7.5, "prompt_tokens": 20, "output_tokens": 2, "session": "a", "status": 200}\n'
    '{"arrival_s": 7.0, "prompt_tokens": 600, "output_tokens": 0, "hash_ids": [9]}\n'
)


def write(tmp_path, data, name="trace"):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(tmp_path, data):
    return read_trace(write(tmp_path, data))


def error_of(tmp_path, data):
    path = write(tmp_path, data)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    return str(caught.value).removeprefix(str(path))


class TestAzure:
    def test_seven_fractional_digits_count(self, tmp_path):
        first, second = read(tmp_path, AZURE).requests
        assert (first.arrival_s, first.prompt_tokens, first.output_tokens) == (0, 4808, 10)
        assert second.arrival_s == pytest.approx(0.0520007, abs=1e-12)

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_line_ends_and_a_byte_order_mark_do_not_matter(self, tmp_path, end, mark):
        assert read(tmp_path, mark + AZURE.replace("\n", end)) == read(tmp_path, AZURE)

    def test_columns_may_be_quoted_and_stand_anywhere(self, tmp_path):
        text = 'model,"GeneratedTokens",TIMESTAMP,ContextTokens\nm,"8",2023-11-16 18:17:04,31\n'
        assert read(tmp_path, text).requests == (
            TraceRequest(arrival_s=0, prompt_tokens=31, output_tokens=8),
        )

    def test_offsets_from_utc_as_in_2024(self, tmp_path):
        text = (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2024-05-10 00:00:00.009930+00:00,1,1\n"
            "2024-05-10 02:00:01.009930+02:00,1,1\n"
        )
        assert read(tmp_path, text).duration_s == 1.0

    @pytest.mark.parametrize(
        ("row", "complaint"),
        [
            ("2023-11-16,5,5", ":3: TIMESTAMP '2023-11-16' is not like"),
            ("2023-13-16 18:17:04.03,5,5", ":3: month must be in 1..12"),
            ("2023-11-16 18:17:04.03,0,5", ":3: ContextTokens '0' is no whole number of at least"),
            ("2023-11-16 18:17:04.03,5,-1", ":3: GeneratedTokens '-1' is no whole number"),
            ("2023-11-16 18:17:04.03,1_0,5", ":3: ContextTokens '1_0' is no whole number"),
            ("2023-11-16 18:17:04.03,5", ":3: 2 fields, the header has 3"),
            ('2023-11-16 18:17:04.03,"5,5', ":3: unexpected end of data"),
        ],
    )
    def test_bad_rows_are_named(self, tmp_path, row, complaint):
        rows = AZURE.splitlines()[:2]
        assert error_of(tmp_path, "\n".join((*rows, row))).startswith(complaint)


class TestMooncake:
    def test_times_are_milliseconds(self, tmp_path):
        first, second = read(tmp_path, MOONCAKE).requests
        assert first == TraceRequest(
            arrival_s=0, prompt_tokens=1100, output_tokens=5, hash_ids=(0, 1, 2)
        )
        assert (second.arrival_s, second.prompt_tokens, second.hash_ids) == (2.999, 581, ())
        assert (second.tenant, second.session) == ("104", None)

    def test_the_partial_block_is_not_reusable(self, tmp_path):
        first, _ = read(tmp_path, MOONCAKE).requests
        assert first.whole_blocks == (0, 1)

    @pytest.mark.parametrize(
        ("row", "complaint"),
        [
            ('{"timestamp": 0}', ":3: Object missing required field `input_length`"),
            ('{"timestamp": 0, "input_length": 0, "output_length": 1}', ":3: Expected `int` >= 1"),
            ('{"timestamp": "0", "input_length": 1, "output_length": 1}', ":3: Expected `float`"),
            (
                '{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [1, 2]}',
                ":3: 2 hash_ids for 9 prompt tokens, which are only 1 blocks of 512",
            ),
            ('{"timestamp": 0', ":3: Input data was truncated"),
        ],
    )
    def test_bad_rows_are_named(self, tmp_path, row, complaint):
        assert error_of(tmp_path, MOONCAKE + row).startswith(complaint)


class TestOwn:
    def test_rows_are_ordered_and_time_counts_from_the_first(self, tmp_path):
        assert read(tmp_path, OWN).requests == (
            TraceRequest(arrival_s=0, prompt_tokens=600, output_tokens=0, hash_ids=(9,)),
            TraceRequest(arrival_s=0.5, prompt_tokens=20, output_tokens=2, session="a"),
        )

    def test_the_header_is_optional(self, tmp_path):
        headless = OWN.partition("\n")[2]
        assert read(tmp_path, headless) == read(tmp_path, OWN)

    @pytest.mark.parametrize(
        "header", ['{"format": "pointsman-trace", "version": 2}', '{"format": "x", "version": 1}']
    )
    def test_other_versions_are_refused(self, tmp_path, header):
        assert " is not known; this reads " in error_of(tmp_path, f"{header}\n")

    def test_errors_that_the_record_itself_finds_are_named(self, tmp_path):
        row = '{"arrival_s": 0, "prompt_tokens": 5, "output_tokens": 1, "hash_ids": [1, 2]}'
        assert error_of(tmp_path, f"{OWN}\n{row}\n").startswith(":5: 2 hash_ids for 5 prompt")

    @given(
        st.lists(
            st.builds(
                TraceRequest,
                arrival_s=st.floats(0, 1e6),
                prompt_tokens=st.integers(2048, 10**6),
                output_tokens=st.integers(0, 10**6),
                hash_ids=st.lists(st.integers(0, 2**62), max_size=4).map(tuple),
                block_tokens=st.integers(1, 512),
                session=st.none() | st.text(),
                tenant=st.none() | st.text(),
            ),
            min_size=1,
        ),
        st.booleans(),
    )
    def test_what_was_dumped_is_read_back(self, tmp_path_factory, requests, zipped):
        trace = Trace.of("t", requests)
        data = own.dump(trace)
        path = tmp_path_factory.mktemp("own") / "t"
        path.write_bytes(gzip.compress(data, 1) if zipped else data)
        assert read_trace(path) == trace


class TestFiles:
    @pytest.mark.parametrize("text", [AZURE, MOONCAKE, OWN])
    def test_zipped_or_not_is_seen_in_the_bytes(self, tmp_path, text):
        assert read(tmp_path, gzip.compress(text.encode())) == read(tmp_path, text)

    @pytest.mark.parametrize("text", [MOONCAKE, OWN])
    def test_blank_lines_and_crlf_are_fine_in_json_lines(self, tmp_path, text):
        assert read(tmp_path, text.replace("\n", "\r\n\r\n")) == read(tmp_path, text)

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (b"", ": is empty"),
            (
                b"hello\n",
                ":1: the first line is that of no known format (Azure CSV, Mooncake JSONL",
            ),
            (b'{"a": 1}\n', ":1: the first line is that of no known format"),
            (b"TIMESTAMP,ContextTokens,GeneratedTokens\n", ": holds no requests"),
            (b"TIMESTAMP,ContextTokens,GeneratedTokens\n\xff,1,1\n", ": is no UTF-8 text"),
            (gzip.compress(AZURE.encode(), mtime=0)[:-12], ": Compressed file ended before"),
            (b"\x1f\x8bnonsense", ": Unknown compression method"),
        ],
    )
    def test_what_is_no_trace_is_refused(self, tmp_path, data, complaint):
        assert error_of(tmp_path, data).startswith(complaint)

    def test_a_folder_is_no_trace(self, tmp_path):
        with pytest.raises(TraceError, match="Is a directory"):
            read_trace(tmp_path)
