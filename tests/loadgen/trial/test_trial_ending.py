"""A run that is told to end cleans up first."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from loadgen.trial.ending import SIGNALS, until_signalled


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_ends_the_work_after_it_has_cleaned_up(number):
    cleaned = []

    async def work():
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async with asyncio.timeout(10):
        assert await until_signalled(work()) is number
    assert cleaned


async def test_a_second_signal_ends_the_cleaning_too():
    async def work():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        assert await until_signalled(work()) is signal.SIGINT


async def test_work_that_ends_by_itself_is_told_from_work_that_was_ended():
    assert await until_signalled(asyncio.sleep(0)) is None
    before = signal.getsignal(signal.SIGTERM)
    assert await until_signalled(asyncio.sleep(0)) is None
    assert signal.getsignal(signal.SIGTERM) is before


async def test_what_work_raises_is_raised():
    async def work():
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await until_signalled(work())
