"""Log lines go to a pipe that somebody reads, slowly, or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

import pytest

from queueworker.processes.log_output import MAX_WAIT_SECONDS, WAIT_SHARE, LogOutput

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pipe:
    """A pipe, and a handler that writes to it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.stream = os.fdopen(self.writing, "w")
        self.handler = LogOutput(self.stream)

    def log(self, message: str) -> None:
        self.handler.handle(record(message))

    def read(self) -> str:
        found = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reading, 65536):
                found += piece
        return found.decode()


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("a", logging.INFO, "f", 1, message, (), None)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reading)
    pipe.stream.close()


def test_each_line_is_written_whole_and_in_order(pipe: Pipe) -> None:
    pipe.log("first")
    pipe.stream.write("printed\n")
    pipe.log("é" * 10_000)
    assert pipe.read() == "first\nprinted\n" + "é" * 10_000 + "\n"


def test_a_pipe_that_nobody_reads_holds_up_the_process_once_and_lines_that_were_dropped_are_counted(pipe: Pipe) -> None:
    for number in range(1000):  # 64 KiB fit
        pipe.log(f"{number:03} " + "x" * 1000)
    kept = [line[:3] for line in pipe.read().splitlines() if line.endswith("x" * 1000)]
    pipe.log("there is room again")
    assert 0 < len(kept) < 100
    assert kept == [f"{number:03}" for number in range(len(kept))]
    note = f"{1000 - len(kept)} lines of the log could not be written to standard error"
    assert pipe.read().splitlines()[-2:] == [note, "there is room again"]


def test_a_line_that_was_cut_does_not_run_into_the_next(pipe: Pipe) -> None:
    pipe.log("x" * 200_000)
    assert set(pipe.read()) == {"x"}
    pipe.log("next")
    lines = pipe.read().splitlines()
    assert lines[-2:] == ["1 lines of the log could not be written to standard error", "next"]


def test_lines_wait_for_a_slow_reader_for_a_fiftieth_of_the_time(pipe: Pipe) -> None:
    now, waited = 0.0, []

    def nobody_reads(_number: int, seconds: float) -> bool:
        nonlocal now
        now += seconds
        waited.append(seconds)
        return False

    handler = LogOutput(pipe.stream, clock=lambda: now, room_within=nobody_reads)
    for _ in range(3):
        handler.handle(record("no room"))
    now += 10
    handler.handle(record("no room"))
    now += 3600
    handler.handle(record("no room"))
    assert [seconds for seconds in waited if seconds] == pytest.approx(
        [MAX_WAIT_SECONDS, 10 * WAIT_SHARE, MAX_WAIT_SECONDS]
    )


def test_a_stream_that_does_not_wait_drops_what_has_no_room(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    for _ in range(100):
        pipe.log("x" * 1000)
    pipe.read()
    pipe.log("there is room again")
    assert pipe.read().endswith("there is room again\n")


def test_what_a_full_disk_does_not_take_is_counted_and_told_nowhere_else(capfd: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        handler = LogOutput(full)
        handler.handle(record("lost"))
    assert capfd.readouterr().err == ""


def test_a_reader_that_has_gone_is_no_error(pipe: Pipe, capfd: pytest.CaptureFixture[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe.reading)
    pipe.log("lost")
    assert capfd.readouterr().err == ""
