import io
import logging
import re
import warnings

import pytest

from router.logs import set_up_logging


@pytest.fixture
def log():
    """Set up logging to a string, and put everything back at the end."""
    root, ours = logging.getLogger(), logging.getLogger("pointsman")
    before = (root.handlers[:], root.level, ours.level)
    stream = io.StringIO()

    def start(level):
        set_up_logging(level, stream)
        return stream

    yield start
    logging.captureWarnings(capture=False)
    root.handlers[:], level, ours_level = before
    root.setLevel(level)
    ours.setLevel(ours_level)


def test_a_record_is_one_line_with_time_level_and_place(log):
    stream = log("info")
    logging.getLogger("pointsman.poller").info("replica %s is %s", "a:1", "ready")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO pointsman\.poller: replica a:1 is ready\n",
        stream.getvalue(),
    )


def test_nobody_can_forge_a_line_or_send_codes_to_the_terminal(log):
    stream = log("info")
    logging.getLogger("pointsman").info("model %s", "x\n2026 INFO forged\r\x1b[2J\x85\u2028\x00")
    assert stream.getvalue().count("\n") == 1
    assert r"model x\n2026 INFO forged\r\x1b[2J\x85\u2028\x00" in stream.getvalue()


def test_a_traceback_is_on_the_line(log):
    stream = log("error")
    try:
        int("broken")
    except ValueError:
        logging.getLogger("pointsman").exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert r"failed\nTraceback (most recent call last):\n" in stream.getvalue()
    assert stream.getvalue().endswith(
        "ValueError: invalid literal for int() with base 10: 'broken'\n"
    )


@pytest.mark.parametrize(
    ("level", "seen"),
    [("debug", "dwe"), ("info", "we"), ("warning", "we"), ("error", "e")],
)
def test_the_level_holds_for_our_own_loggers(log, level, seen):
    stream = log(level)
    logger = logging.getLogger("pointsman.x")
    logger.debug("d")
    logger.warning("w")
    logger.error("e")
    assert "".join(line[-1] for line in stream.getvalue().splitlines()) == seen


def test_libraries_say_only_what_is_wrong(log):
    stream = log("debug")
    logging.getLogger("aiohttp.access").info("GET /?key=secret")
    logging.getLogger("asyncio").warning("slow")
    assert "secret" not in stream.getvalue()
    assert "asyncio: slow" in stream.getvalue()


def test_warnings_are_logged(log):
    stream = log("info")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
    assert "old" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_set_up_twice_is_set_up_once(log):
    log("info")
    stream = log("info")
    logging.getLogger("pointsman").info("once")
    assert stream.getvalue().count("once") == 1
