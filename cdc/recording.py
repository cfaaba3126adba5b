"""A recorded stream: the file that keeps what one consumer was sent, and what it had to ask to understand it.

Touches the one file that it is given, to read it; `recorder` writes it. The format is docs/recorded-streams.md. A file
is a first line and then records, each with its length before it and a checksum behind it, so that a record which a
crash has cut off is recognised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import IO, Any, TypeAlias, cast
from zlib import crc32

from cdc.errors import CdcError, ConfigurationError
from cdc.events import Gap, GapKind
from cdc.lsn import Lsn, Position
from cdc.pgoutput import RelationColumn, RelationMessage
from cdc.progress import Heard
from cdc.values import TypeInfo

__all__ = ["MAGIC", "Batch", "Conversation", "End", "Record", "Recording", "Told", "packed"]

MAGIC = b"cdc recording 1\n"
"""The first line; the digit is the version of the format."""
_FAMILY = MAGIC[:14]

_HEAD = Struct(">BI")
_SUM = Struct(">I")
_BATCH = Struct(">QqI")
_LENGTH = Struct(">I")


@dataclass(frozen=True, slots=True)
class Told:
    """A relation as it was described, with what the catalog was asked for that.

    Attributes:
        message: the Relation message.
        key: names of the columns that make a row's key; empty when the table has none.
        oid: OID of the table that had its name then; None when no table had it.
        types: the types that its cells are made of, built-in ones left out.
        nondeterministic: names of the columns whose collation makes different bytes equal.
        code_point: names of the columns whose collation orders by code point.
        plain_case: names of the others in whose language i and I are each other's case.
    """

    message: RelationMessage
    key: tuple[str, ...]
    oid: int | None
    types: tuple[TypeInfo, ...]
    nondeterministic: tuple[str, ...]
    code_point: tuple[str, ...] = ()
    plain_case: tuple[str, ...] = ()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Told:
        """From JSON."""
        message = said["message"]
        columns = tuple(RelationColumn(*column) for column in message["columns"])
        relation = RelationMessage(
            message["oid"], message["schema"], message["table"], message["replica_identity"], columns
        )
        types = tuple(_type_info(each) for each in said["types"])
        collations = (tuple(said.get(name, ())) for name in ("nondeterministic", "code_point", "plain_case"))
        return cls(relation, tuple(said["key"]), said["oid"], types, *collations)

    def written(self) -> dict[str, Any]:
        """Ready for JSON."""
        message = self.message
        columns = [[each.name, each.type_oid, each.type_modifier, each.in_identity] for each in message.columns]
        relation = {name: getattr(message, name) for name in ("oid", "schema", "table", "replica_identity")}
        return {
            "message": relation | {"columns": columns},
            "key": self.key,
            "oid": self.oid,
            "types": [asdict(each) for each in self.types],
            "nondeterministic": self.nondeterministic,
            "code_point": self.code_point,
            "plain_case": self.plain_case,
        }


@dataclass(frozen=True, slots=True)
class Conversation:
    """The header of one connection: all that has to be known before its first frame.

    Attributes:
        run: token of one call of `record`; conversations of a run were one consumer's.
        at: when it began, in microseconds since 2000-01-01 UTC, by the clock of this machine.
        server_version: as 180006 for 18.6.
        system_id, timeline: which server, as IDENTIFY_SYSTEM says.
        slot: name of the slot; `temporary` when it went with the connection.
        remembers: whether the position was kept somewhere.
        on_gap: the consumer's setting.
        publications, streaming, two_phase, binary, messages: how the server was asked to stream.
        epoch: token of the slot's life.
        start_lsn: from where the server was asked to stream.
        position: the saved position.
        skip: commit LSN and ordinal of the last change that was finished before and came again.
        gap: the gap before its start, as the handlers heard of it.
        decoders: names of the types for which decoders were registered.
        tables: schema, name and OID of each published table.
        relations: those that had been described before the recording began in the midst of a conversation.
    """

    run: str
    at: int
    server_version: int
    system_id: str
    timeline: int
    slot: str
    temporary: bool
    remembers: bool
    on_gap: str
    publications: tuple[str, ...]
    streaming: str
    two_phase: bool
    binary: bool
    messages: bool
    epoch: str
    start_lsn: Lsn
    position: Position | None
    skip: tuple[Lsn, int] | None
    gap: Gap | None
    decoders: tuple[str, ...]
    tables: tuple[tuple[str, str, int], ...]
    relations: tuple[Told, ...]

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Conversation:
        """From JSON; what a later release adds is passed over."""
        found = {field.name: said[field.name] for field in fields(cls)}
        skip, gap = found["skip"], found["gap"]
        found |= {
            "publications": tuple(found["publications"]),
            "decoders": tuple(found["decoders"]),
            "start_lsn": Lsn.parse(found["start_lsn"]),
            "position": _position(found["position"]),
            "skip": None if skip is None else (Lsn.parse(skip[0]), skip[1]),
            "gap": None if gap is None else _gap(gap),
            "tables": tuple((schema, table, oid) for schema, table, oid in found["tables"]),
            "relations": tuple(map(Told.read, found["relations"])),
        }
        return cls(**found)

    def written(self) -> dict[str, Any]:
        """Ready for JSON."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return said | {
            "start_lsn": str(self.start_lsn),
            "position": self.position and str(self.position),
            "skip": self.skip and (str(self.skip[0]), self.skip[1]),
            "gap": self.gap and self.gap.to_dict(),
            "relations": [each.written() for each in self.relations],
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames that were taken from the connection at once.

    Attributes:
        number: of the first of them in its conversation, from 1.
        at: when they were taken, in microseconds since 2000-01-01 UTC, by the clock of this machine.
        frames: CopyData frames, as they came.
    """

    number: int
    at: int
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The recorder knows that the conversation, or the recording of it, has ended.

    Attributes:
        reason: why, in words.
        frames: number of frames of the conversation.
        received: LSN that the stream had reached when the consumer was stopped, or lost its connection, perhaps before
            it had handled all frames. None when it handled all of them, or failed.
        finished: the last change that was handed out then, if any.
        heard: the last logical messages that were handed out then, if any; see `Progress.heard`.
    """

    reason: str
    frames: int
    received: Lsn | None = None
    finished: Position | None = None
    heard: Heard | None = None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> End:
        """From JSON."""
        received = None if said["received"] is None else Lsn.parse(said["received"])
        heard = None if said["heard"] is None else tuple(map(Lsn.parse, said["heard"]))
        return cls(said["reason"], said["frames"], received, _position(said["finished"]), cast("Heard | None", heard))

    def written(self) -> dict[str, Any]:
        """Ready for JSON."""
        places = {"received": self.received, "finished": self.finished}
        said = {name: None if place is None else str(place) for name, place in places.items()}
        return asdict(self) | said | {"heard": None if self.heard is None else [str(lsn) for lsn in self.heard]}


Record: TypeAlias = "Conversation | Batch | Told | End"

_KINDS: dict[type, bytes] = {Conversation: b"C", Told: b"R", End: b"E"}
_READ: dict[int, Callable[[Mapping[str, Any]], Record]] = {
    ord("C"): Conversation.read,
    ord("R"): Told.read,
    ord("E"): End.read,
}


def packed(record: Record) -> bytes:
    """A record as it stands in the file."""
    if isinstance(record, Batch):
        frames = b"".join(_LENGTH.pack(len(frame)) + frame for frame in record.frames)
        return _sealed(b"F", _BATCH.pack(record.number, record.at, len(record.frames)) + frames)
    return _sealed(_KINDS[type(record)], _json(record.written()))


def _json(said: dict[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()


def _sealed(kind: bytes, payload: bytes) -> bytes:
    whole = _HEAD.pack(kind[0], len(payload)) + payload
    return whole + _SUM.pack(crc32(whole))


class Recording:
    """Reads a recorded stream.

    Attributes:
        path: the file.
        note: what was found at its end that is no whole record, once it was read to there; None when nothing was.
        sound: bytes of whole records that were read so far.

    Raises ConfigurationError when it cannot be read, or is something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.note: str | None = None
        self.sound = len(MAGIC)
        with self._opened():
            pass

    def __iter__(self) -> Iterator[Record]:
        """Every record. Raises CdcError where the file is damaged; a record that was cut off at its end is a `note`."""
        self.note, self.sound = None, len(MAGIC)
        with self._opened() as file:
            while (found := self._next(file)) is not None:
                yield found
                self.sound = file.tell()

    def conversations(self) -> list[Conversation]:
        """The headers of all conversations."""
        return [record for record in self if isinstance(record, Conversation)]

    def _opened(self) -> IO[bytes]:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise ConfigurationError(f"the recording {self.path} cannot be read: {error.strerror}") from None
        line = file.read(len(MAGIC))
        if line == MAGIC:
            return file
        file.close()
        if line.startswith(_FAMILY):
            version = line[len(_FAMILY) :].decode("latin-1").strip()
            raise ConfigurationError(
                f"{self.path} is a recording of format {version}, and this release reads format 1: take the release "
                "of cdc that recorded it"
            )
        raise ConfigurationError(f"{self.path} is not a recording of cdc")

    def _next(self, file: IO[bytes]) -> Record | None:
        head = file.read(_HEAD.size)
        if not head:
            return None
        kind, size = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        body = file.read(size + _SUM.size)
        if len(body) < size + _SUM.size:
            self._cut_off(file)
            return None
        if crc32(head + body[:size]) != _SUM.unpack_from(body, size)[0]:
            if any(head + body) and file.read(1):
                raise self._damaged("its checksum is another")
            self._cut_off(file)  # the last one, or zeros as a crash of the machine leaves them
            return None
        return self._read(kind, body[:size])

    def _read(self, kind: int, payload: bytes) -> Record:
        try:
            if kind == ord("F"):
                return _batch(payload)
            return _READ[kind](json.loads(payload))
        except (ValueError, KeyError, TypeError, IndexError, StructError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from None

    def _cut_off(self, file: IO[bytes]) -> None:
        """The end of what a crash, or a full disk, has left."""
        left = file.seek(0, 2) - self.sound
        self.note = f"the last {left} bytes, from byte {self.sound} on, are no whole record: the recording ends there"

    def _damaged(self, problem: str) -> CdcError:
        return CdcError(f"the recording {self.path} is damaged at byte {self.sound}: {problem}")


def _batch(payload: bytes) -> Batch:
    number, at, count = _BATCH.unpack_from(payload)
    frames, place = [], _BATCH.size
    for _ in range(count):
        stop = place + _LENGTH.size + _LENGTH.unpack_from(payload, place)[0]
        frames.append(payload[place + _LENGTH.size : stop])
        place = stop
    if place != len(payload):
        raise ValueError("its frames do not fill it")
    return Batch(number, at, tuple(frames))


def _position(text: str | None) -> Position | None:
    return None if text is None else Position.parse(text)


def _gap(said: Mapping[str, Any]) -> Gap:
    kind = GapKind(said["kind"]) if said["kind"] in set(GapKind) else GapKind.OTHER
    last, previous, position = (_position(said[name]) for name in ("last", "previous", "position"))
    return Gap(said["reason"], last, previous, kind, tuple(said["tables"]), position)


def _type_info(said: dict[str, Any]) -> TypeInfo:
    attributes = tuple((name, oid) for name, oid in said["attributes"])
    labels = {name: tuple(said.get(name, ())) for name in ("labels", "label_oids")}
    return TypeInfo(**said | {"attributes": attributes} | labels)
