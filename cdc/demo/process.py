"""The writer process, as the demo holds it.

Touches one child process and its pipes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from types import TracebackType
from typing import Self

__all__ = ["WriterProcess"]

_PATIENCE = 30.0
"""Seconds to wait for the writer to begin, and to end."""


class WriterProcess:
    """`python -m cdc.demo.writer`, from the beginning to the end of a `with` statement.

    Args:
        dsn: the database, as the table's owner.

    Attributes:
        lines: what the writer has said last.
        transactions: how many lines it has said.
        rollbacks: how many of them tell of a rollback.
        failure: why it ended, in words, when that was not wanted; else None.
    """

    def __init__(self, dsn: str) -> None:
        self.lines: deque[str] = deque(maxlen=50)
        self.transactions = 0
        self.rollbacks = 0
        self.failure: str | None = None
        self._dsn = dsn
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        # A process group of its own: Ctrl-C is for the demo, which then ends the writer politely.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cdc.demo.writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"CDC_DSN": self._dsn, "PYTHONUNBUFFERED": "1"},
            text=True,
            process_group=0,
        )
        self._listener = threading.Thread(target=self._listen, name="demo-writer", daemon=True)
        self._listener.start()
        try:
            if not self._ready.wait(_PATIENCE):
                self.failure = "it did not begin"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def _end(self) -> None:
        """Let it finish the transaction at hand; a writer that does not want to is killed."""
        process = self._process
        died = process.poll() is not None
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.failure = self.failure or "it did not end when it was told to"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._listener.join(_PATIENCE)
        if died or process.returncode != 0:
            last = self.lines[-1] if self.lines else "without a word"
            self.failure = self.failure or f"it ended with exit code {process.returncode}: {last}"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._take(line.rstrip())
        self._ready.set()

    def _take(self, line: str) -> None:
        if not self._ready.is_set():
            self._ready.set()
            if line == "ready":
                return
        self.lines.append(line)
        self.transactions += 1
        self.rollbacks += line.startswith("ROLLBACK:")
