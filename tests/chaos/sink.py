"""The sink: a file to which the consumer appends a line for each event, and what can be read from it.

A line is JSON. A write may stop in the middle of a line, as when the disk is full: what is left of it is cut off
before the next line is written, by this process or the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cdc
from tests.chaos.ledger import frozen

__all__ = ["Sink", "described", "lines"]


class Sink:
    """Appends lines; when `write` has returned, the line is in the file.

    Args:
        path: the file; it is made when it is not there.
        fsync: wait for the disk after each line.
    """

    def __init__(self, path: Path, fsync: bool = False) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._fsync = fsync
        self._cut()

    def write(self, **fields: Any) -> None:
        """Append a line. Raises OSError when it cannot be written as a whole."""
        if self._torn:
            self._cut()
        rest = memoryview(json.dumps(fields).encode() + b"\n")
        self._torn = True
        while rest:
            rest = rest[os.write(self._file, rest) :]
        if self._fsync:
            os.fsync(self._file)
        self._torn = False

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file).st_size

    def _cut(self) -> None:
        """Drop the last line when it has no end."""
        content = os.pread(self._file, self.size, 0)
        os.ftruncate(self._file, content.rfind(b"\n") + 1)
        self._torn = False


def described(event: Any) -> dict[str, Any]:
    """An event as the fields of a line."""
    if isinstance(event, cdc.Gap):
        told = {"gap": event.reason, "last": _text(event.last), "previous": _text(event.previous)}
        return told | ({"resync": True} if event.resync else {})
    if isinstance(event, cdc.Read):
        fields = {"read": str(event.position), "previous": _text(event.previous), "table": event.table}
        return fields | {"key": event.key, "value": event.new["value"]}
    if not isinstance(event, cdc.Change):
        return {"other": type(event).__name__}
    fields: dict[str, Any] = {"table": event.table, "operation": event.event_type, "xid": event.xid}
    fields |= {"position": str(event.position), "previous": _text(event.previous)}
    if not isinstance(event, cdc.Truncate):
        value = None if event.new is None else event.new["value"]
        fields |= {"key": event.key, "old_key": event.old_key, "value": value}
    return fields


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the file."""
    content = path.read_bytes() if path.exists() else b""
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        yield {name: frozen(value) for name, value in json.loads(line).items()}


def _text(position: cdc.Position | None) -> str | None:
    return None if position is None else str(position)
