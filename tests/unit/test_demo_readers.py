"""The demo's readers notice a cache that lies; its writer process ends as it should."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import cdc
from cdc.demo.process import WriterProcess
from cdc.demo.readers import Checker, Readers, Watcher, Well


class Forgetful:
    """Stands in for a cache: gives what it is told to give, or raises it."""

    def __init__(self, *answers: Well | None | Exception) -> None:
        self.answers = list(answers)
        self.asked = threading.Event()

    def fetch(self, key: Any, load: Any) -> Any:
        if len(self.answers) == 1:
            self.asked.set()
            [answer] = self.answers
        else:
            answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Impatient:
    """Stands in for a consumer that is never asked."""

    def wait_for(self, lsn: cdc.Lsn, timeout: float = 1.0) -> None:
        raise AssertionError("nobody should wait")


def well(revision: int) -> Well:
    return Well("31/2-A5", None, revision)


@pytest.mark.parametrize(("read", "stale"), [(well(5), 0), (well(6), 0), (well(4), 1), (None, 1)])
def test_checker_counts_a_value_older_than_its_write(read: Well | None, stale: int) -> None:
    checker = Checker(Forgetful(), Impatient(), "", "lab")
    checker.judge(read, 5)
    assert (checker.reads_after_wait, checker.stale) == (1, stale)


def test_watcher_counts_reads_that_go_back() -> None:
    watcher = Watcher(Forgetful(), [])
    for read in (well(1), well(3), well(3), well(2), well(4), None, None, well(4)):
        watcher.judge(7, read)
    watcher.judge(8, well(1))
    assert watcher.backward == 2


def test_watcher_reads_until_it_is_stopped() -> None:
    wells = Forgetful(well(9), well(3))
    watcher = Watcher(wells, [7])
    watcher.start()
    assert wells.asked.wait(10)
    watcher.stop()
    watcher.join()
    assert watcher.failure is None
    assert watcher.reads >= 2
    assert watcher.backward == 1


def test_readers_add_up_and_end() -> None:
    wells = Forgetful(well(3))
    with Readers(wells, Impatient(), "host=127.0.0.1 port=1 connect_timeout=1", [7]) as readers:
        assert wells.asked.wait(10)
    assert readers.reads >= 1
    assert readers.stale == readers.reads_after_wait == readers.backward == 0
    assert len(readers.failures) == 2, "the two readers that write had no server"


@pytest.mark.parametrize("error", [cdc.NotYetVisible("later"), TimeoutError("too long")])
def test_failing_read_is_told(error: Exception) -> None:
    watcher = Watcher(Forgetful(error), [7])
    watcher.start()
    watcher.join()
    assert watcher.failure == f"a reader failed: {error}"


def test_writer_that_cannot_connect_is_told() -> None:
    writer = WriterProcess("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
    with writer:
        writer._process.wait(30)
    assert not writer.running
    assert writer.failure is not None
    assert writer.failure.startswith("it ended with exit code 1: ")
    assert "127.0.0.1" in writer.failure
