"""Recorded frames, and what they say: once by the decoder, once by the consumer's own stream.

A recording is a file with one CopyData frame a line, in base64. Beside it lie two files with one JSON document a line:
the messages that `cdc.pgoutput.Decoder` reads, with a letter for each cell of a row as on the wire, and the events that
`cdc.stream.Stream` hands out. Cells are shown there as they were sent, since what becomes of them is another matter:
text as text, binary form as `{"binary": …}`, NULL as null, a value that was not sent as `{"unsent": true}`; long ones
are cut. No server is needed.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cdc.events import RowChange, Truncate
from cdc.holding import Committed, PreparedEnd
from cdc.lsn import Lsn
from cdc.pgoutput import Decoder, Message, RelationMessage, describe
from cdc.relation import Relation
from cdc.row import Row
from cdc.spool import MemoryOrFile
from cdc.stream import Stream
from cdc.tuples import Binary, Cell, Unchanged
from cdc.values import Types

FOLDER = Path(__file__).parent
_LONGEST = 60


@dataclass(frozen=True)
class Recording:
    """The frames that one server sent in one variant of the protocol.

    Attributes:
        version: the server's major version.
        variant: name of the variant, such as `proto2-streaming`.
    """

    version: int
    variant: str

    def __str__(self) -> str:
        return f"pg{self.version}/{self.variant}"

    @property
    def path(self) -> Path:
        return FOLDER / f"pg{self.version}" / f"{self.variant}.frames"

    @property
    def streaming(self) -> str:
        return "parallel" if "parallel" in self.variant else "off" if "proto1" in self.variant else "on"

    def frames(self) -> list[bytes]:
        return [b64decode(line) for line in self.path.read_text().splitlines()]

    def payloads(self) -> list[bytes]:
        """The messages, without the frames round them."""
        return [frame[25:] for frame in self.frames() if frame[:1] == b"w"]

    def expected(self, what: str) -> list[str]:
        """The lines of the file of `messages` or `events`."""
        return self.path.with_suffix(f".{what}.jsonl").read_text().splitlines()

    def save(self, frames: Iterable[bytes]) -> None:
        """Write the frames and what they say."""
        self.path.parent.mkdir(exist_ok=True)
        kept = list(frames)
        self.path.write_text("".join(f"{b64encode(frame).decode()}\n" for frame in kept))
        said = {"messages": map(shown, messages(kept)), "events": map(shown_event, events(kept, self.spool()))}
        for what, lines in said.items():
            self.path.with_suffix(f".{what}.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def spool(self) -> MemoryOrFile:
        return MemoryOrFile(1 << 20)


def recordings() -> list[Recording]:
    """Every recording that there is."""
    return [Recording(int(path.parent.name[2:]), path.stem) for path in sorted(FOLDER.glob("pg*/*.frames"))]


def messages(frames: Iterable[bytes], decoder: Decoder | None = None) -> Iterator[Message]:
    """What the decoder reads; keepalives are no messages."""
    decoder = decoder or Decoder()
    return (decoder.decode(frame) for frame in frames if frame[:1] == b"w")


class Conversation:
    """A stream that is driven as the loop drives it, without a server."""

    def __init__(self, spool: MemoryOrFile, types: Types | None = None, finished: Any = None) -> None:
        self.stream = Stream("ep", Lsn(0), finished, 10.0, spool)
        self.types = Types() if types is None else types

    def receive(self, frame: bytes) -> Iterator[Any]:
        """The events of one frame."""
        item = self.stream.receive(frame)
        if isinstance(item, RelationMessage):
            self.stream.define(describe(item, self.types, ["id"]))
        elif isinstance(item, list):
            yield from item
        elif isinstance(item, Committed):
            for held in self.stream.deliver(item):
                for each in held:
                    yield from self.receive(each)
        elif isinstance(item, RowChange | PreparedEnd):
            yield item
            if isinstance(item, PreparedEnd):
                self.stream.told(item)


def events(frames: Iterable[bytes], spool: MemoryOrFile, types: Types | None = None) -> Iterator[Any]:
    """What the consumer's stream hands out: row changes, truncates, and what happened to prepared transactions."""
    conversation = Conversation(spool, types)
    for frame in frames:
        yield from conversation.receive(frame)


# What is shown.


def shown(message: Message) -> str:
    """A message as one line of JSON."""
    said = {field.name: _brief(getattr(message, field.name)) for field in fields(message)}
    if said.get("xid") is None:
        said.pop("xid", None)
    return json.dumps({"message": type(message).__name__} | said, ensure_ascii=False)


def shown_event(event: Any) -> str:
    """An event as one line of JSON."""
    if isinstance(event, PreparedEnd):
        said = {"event": "ROLLED BACK" if event.rolled_back else "PREPARED", "gid": event.gid, "lsn": str(event.lsn)}
        return json.dumps(said | {"xid": event.held.xid})
    said = {"event": event.event_type, "at": str(event.position), "xid": event.xid, "table": event.table}
    if isinstance(event, Truncate):
        return json.dumps(said | {"cascade": event.cascade, "restart_identity": event.restart_identity})
    return json.dumps(said | {"old": _plain(event.old), "new": _plain(event.new)}, ensure_ascii=False)


def _brief(value: Any) -> Any:
    """A row as one letter for each of its cells, anything else as ever."""
    return "".join(map(_letter, value.cells)) if isinstance(value, Row) else _plain(value)


def _letter(cell: Cell) -> str:
    if cell is None:
        return "n"
    return "u" if isinstance(cell, Unchanged) else "b" if isinstance(cell, Binary) else "t"


def _plain(value: Any) -> Any:
    if isinstance(value, Row):
        return {name: _cell(value.cells[index]) for name, index in value.shape.columns.items()}
    if isinstance(value, Relation | Lsn):
        return str(value)
    if isinstance(value, bytes):
        return _short(value.decode("latin-1"))
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "type_oid"):
        return [value.name, value.type_oid, value.type_modifier, value.in_identity]
    return value


def _cell(cell: Cell) -> Any:
    if cell is None:
        return None
    if isinstance(cell, Unchanged):
        return {"unsent": True}
    if isinstance(cell, Binary):
        return {"binary": _short(cell.hex())}
    return _short(cell.decode())


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)})"
