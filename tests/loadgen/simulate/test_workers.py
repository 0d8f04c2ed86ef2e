"""Studies on several processes: however they end, no process is left."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

DEADLINE_S = 30.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_when_it_is_ended_its_workers_end(number):
    # pytest may have been started where Ctrl-C is ignored
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from router.cli.root import main; main()"
    )
    arguments = ["simulate", "bimodal:n=100000,rate=12", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    give_up_s = time.monotonic() + DEADLINE_S
    try:
        workers = until(lambda: workers_of(process.pid), give_up_s)
        while process.poll() is None:
            assert time.monotonic() < give_up_s
            process.send_signal(number)  # while workers are being started, Ctrl-C is not heard
            with suppress(subprocess.TimeoutExpired):  # then it is sent again
                process.wait(2.0)
        _, alive = psutil.wait_procs(workers, timeout=DEADLINE_S)
        assert not alive
    finally:
        process.kill()
        out, err = process.communicate()
    # a second Ctrl-C may come when the first has been answered already
    assert process.returncode in ({130, -number} if number == signal.SIGINT else {-number})
    assert not out
    assert number == signal.SIGKILL or b"Traceback" not in err


def workers_of(pid):
    children = psutil.Process(pid).children()
    found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return found if len(found) == 2 else None


def until(look, give_up_s):
    while not (found := look()):
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    return found
