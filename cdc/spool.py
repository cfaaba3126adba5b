"""The spool: frames of transactions that are not committed yet, in memory up to a budget, then in temporary files.

Touches temporary files, which have no name, so that nothing is left however the process ends. All transactions
share the budget; when it is used up, the one with the most in memory goes to its file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import IO

from cdc.errors import CdcError

__all__ = ["MemoryOrFile", "SpoolFrames"]

_LENGTH = Struct(">I")
_BLOCK = 1 << 18
"""Bytes that are read back at once."""


class MemoryOrFile:
    """Room for the frames of any number of transactions.

    Args:
        budget: bytes that may be kept in memory, all transactions together.
        folder: where the files go; None is the system's folder for temporary files (TMPDIR).

    Attributes:
        in_memory: bytes that are kept in memory now.
        written: bytes that were written to files so far.
    """

    def __init__(self, budget: int, folder: Path | None = None) -> None:
        self.in_memory = 0
        self.written = 0
        self.folder = folder
        self._budget = budget
        self._open: set[SpoolFrames] = set()

    def open(self) -> SpoolFrames:
        """Room for one more transaction."""
        frames = SpoolFrames(self)
        self._open.add(frames)
        return frames

    def close(self) -> None:
        """Give back everything. Idempotent."""
        for frames in list(self._open):
            frames.drop()

    def grew(self, size: int) -> None:
        """A transaction has `size` bytes more in memory."""
        self.in_memory += size
        if self.in_memory > self._budget:
            max(self._open, key=lambda frames: frames.in_memory).spill()

    def forget(self, frames: SpoolFrames) -> None:
        """A transaction has given back its room."""
        self._open.discard(frames)


class SpoolFrames:
    """The frames of one transaction: each with its length before it, in memory behind what is in the file."""

    def __init__(self, spool: MemoryOrFile) -> None:
        self._spool = spool
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    @property
    def in_memory(self) -> int:
        """Bytes in memory."""
        return len(self._memory)

    def append(self, frame: bytes) -> None:
        """Keep one more frame. Raises CdcError when it has to go to a file and cannot."""
        self._memory += _LENGTH.pack(len(frame))
        self._memory += frame
        self._spool.grew(len(frame) + _LENGTH.size)

    def spill(self) -> None:
        """Move what is in memory to the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(  # noqa: SIM115  # it stays open as long as the transaction
                    dir=self._spool.folder, prefix="cdc-spool-", buffering=0
                )
            _write(self._file, self._memory)
        except OSError as error:
            folder = self._spool.folder or tempfile.gettempdir()
            raise CdcError(
                f"a large transaction cannot be spooled to {folder}: {error.strerror or error}. Make room there, or "
                "name another folder by spool_folder; the position is kept, and the transaction comes again"
            ) from None
        self._spool.written += len(self._memory)
        self._forget_memory()

    def __iter__(self) -> Iterator[list[bytes]]:
        """All frames, in lists."""
        rest = bytearray()
        for block in self._blocks():
            rest += block
            if len(rest) < _LENGTH.size or len(rest) < _LENGTH.size + _LENGTH.unpack_from(rest)[0]:
                continue  # a frame larger than a block: a look at each of its pieces would be quadratic
            frames, left = _frames(bytes(rest))
            rest = bytearray(left)
            yield frames

    def drop(self) -> None:
        """Give back memory and file. Idempotent."""
        self._forget_memory()
        self._spool.forget(self)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _blocks(self) -> Iterator[bytes]:
        if self._file is not None:
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                yield block
        for start in range(0, len(self._memory), _BLOCK):
            yield bytes(self._memory[start : start + _BLOCK])

    def _forget_memory(self) -> None:
        self._spool.in_memory -= len(self._memory)
        self._memory = bytearray()


def _write(file: IO[bytes], data: bytearray) -> None:
    with memoryview(data) as rest:
        written = 0
        while written < len(rest):
            written += file.write(rest[written:])


def _frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames at the beginning of `data`, and what is left."""
    frames = []
    at, end = 0, len(data)
    while at + 4 <= end:
        stop = at + 4 + _LENGTH.unpack_from(data, at)[0]
        if stop > end:
            break
        frames.append(data[at + 4 : stop])
        at = stop
    return frames, data[at:]
