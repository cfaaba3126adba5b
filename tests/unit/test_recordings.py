"""Recorded frames of PostgreSQL 14 to 18, without a server: decoded message by message and by the consumer's stream."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from cdc.pgoutput import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    Decoder,
    DeleteMessage,
    InsertMessage,
    Message,
    Prepare,
    RelationMessage,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    TruncateMessage,
    UpdateMessage,
)
from cdc.row import Row
from cdc.spool import MemoryOrFile
from cdc.tuples import UNCHANGED, Undecoded
from cdc.values import Types
from tests.wire.recording import Recording, events, messages, recordings, shown, shown_event

RECORDINGS = recordings()
ALL = pytest.mark.parametrize("recording", RECORDINGS, ids=str)
VERSIONS = pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
STREAMED = [each for each in RECORDINGS if "proto1" not in each.variant]
TWO_PHASE = [each for each in RECORDINGS if "proto3" in each.variant or "proto4" in each.variant]


def delivered(recording: Recording) -> list[dict[str, Any]]:
    return [json.loads(line) for line in recording.expected("events")]


def changes(recording: Recording) -> list[dict[str, Any]]:
    """The events but those about prepared transactions."""
    return [event for event in delivered(recording) if "at" in event]


# What was recorded.


def test_every_version_has_every_variant() -> None:
    found = defaultdict(set)
    for each in RECORDINGS:
        found[each.version].add(each.variant)
    plain = {"proto1-text", "proto1-binary", "proto2-streaming"}
    two_phase, parallel = plain | {"proto3-two-phase"}, plain | {"proto3-two-phase", "proto4-parallel"}
    assert found == {14: plain, 15: two_phase, 16: parallel, 17: parallel, 18: parallel}


@ALL
def test_every_message_of_the_protocol_was_recorded(recording: Recording) -> None:
    kinds = {chr(payload[0]) for payload in recording.payloads()}
    wanted = set("BCORYIUDTM")
    if recording in STREAMED:
        wanted |= set("SEcA")
    if recording in TWO_PHASE:
        wanted |= set("bPKrp")
    assert kinds == wanted
    aborts = {len(payload) for payload in recording.payloads() if payload[:1] == b"A"}
    assert aborts == (set() if "proto1" in recording.variant else {25 if recording.streaming == "parallel" else 9})


@ALL
def test_every_kind_of_cell_and_old_row_was_recorded(recording: Recording) -> None:
    found = [message for message in messages(recording.frames()) if isinstance(message, UpdateMessage)]
    assert {message.old_kind for message in found} == {None, "K", "O"}
    assert {m.old_kind for m in messages(recording.frames()) if isinstance(m, DeleteMessage)} == {"K", "O"}
    letters = {letter for line in recording.expected("messages") for letter in json.loads(line).get("new") or ""}
    is_binary = recording.variant in ("proto1-binary", "proto4-parallel")
    assert letters == set("bnut" if is_binary else "tnu"), "aclitem has no binary form, so it comes as text"


# Decoding.


@ALL
def test_the_decoder_reads_what_is_expected(recording: Recording) -> None:
    assert list(map(shown, messages(recording.frames()))) == recording.expected("messages")


@ALL
def test_the_stream_hands_out_what_is_expected(recording: Recording) -> None:
    assert list(map(shown_event, events(recording.frames(), recording.spool()))) == recording.expected("events")


@ALL
@pytest.mark.parametrize("budget", [0, 700, 5000])
def test_the_budget_of_the_spool_changes_nothing(recording: Recording, budget: int) -> None:
    spool = MemoryOrFile(budget)
    assert list(map(shown_event, events(recording.frames(), spool))) == recording.expected("events")
    assert spool.in_memory == 0
    assert (spool.written > 0) == (recording in STREAMED and budget < 5000)


@ALL
def test_pieces_of_a_file_give_the_same_as_frames(recording: Recording) -> None:
    whole = b"".join(payload + b"\n" for payload in recording.payloads())
    decoder = Decoder(streaming=recording.streaming)
    pieces = [whole[at : at + 61] for at in range(0, len(whole), 61)]
    assert [shown(m) for piece in pieces for m in decoder.feed(piece)] == recording.expected("messages")
    assert decoder.pending == 0


@ALL
def test_the_stream_agrees_with_the_decoder(recording: Recording) -> None:
    """What the decoder read, put into the order of commits by the test's own means, is what the stream hands out."""
    assembled = list(Assembly().changes(messages(recording.frames())))
    handed = [
        (
            str(event.position),
            event.xid,
            event.event_type,
            str(event.relation),
            cells(event, "old"),
            cells(event, "new"),
        )
        for event in events(recording.frames(), recording.spool())
        if hasattr(event, "position")
    ]
    assert assembled == handed


def cells(owner: Any, name: str) -> Any:
    row = getattr(owner, name, None)
    return list(row.cells) if isinstance(row, Row) else None


class Assembly:
    """Puts decoded messages into transactions: a model of the stream, as simple as can be."""

    def __init__(self) -> None:
        self.small: list[Message] = []
        self.streamed: dict[int, list[Message]] = defaultdict(list)
        self.prepared: dict[str, list[Message]] = {}
        self.tables: dict[int, str] = {}
        self.block = 0

    def changes(self, found: Iterator[Message]) -> Iterator[tuple[Any, ...]]:
        begin: Begin | None = None
        for message in found:
            if isinstance(message, Begin):
                begin = message
            elif isinstance(message, Commit):
                assert begin is not None
                yield from self._numbered(begin.commit_lsn, begin.xid, self.small)
                self.small = []
            elif isinstance(message, StreamStart):
                self.block = message.xid
            elif isinstance(message, StreamStop):
                self.block = 0
            elif isinstance(message, StreamAbort):
                kept = [each for each in self.streamed[message.xid] if getattr(each, "xid", None) != message.subxid]
                self.streamed[message.xid] = kept if message.subxid != message.xid else []
            elif isinstance(message, StreamCommit):
                yield from self._numbered(message.commit_lsn, message.xid, self.streamed.pop(message.xid))
            elif isinstance(message, BeginPrepare):
                assert self.small == []
            elif isinstance(message, Prepare):
                self.prepared[message.gid], self.small = self.small, []
            elif isinstance(message, StreamPrepare):
                self.prepared[message.gid] = self.streamed.pop(message.xid)
            elif isinstance(message, RollbackPrepared):
                del self.prepared[message.gid]
            elif isinstance(message, CommitPrepared):
                yield from self._numbered(message.commit_lsn, message.xid, self.prepared.pop(message.gid))
            elif isinstance(message, RelationMessage):
                self.tables[message.oid] = f"{message.schema}.{message.table}"
            elif isinstance(message, InsertMessage | UpdateMessage | DeleteMessage | TruncateMessage):
                (self.streamed[self.block] if self.block else self.small).append(message)

    def _numbered(self, lsn: object, xid: int, found: list[Message]) -> Iterator[tuple[Any, ...]]:
        ordinal = 0
        for message in found:
            if isinstance(message, TruncateMessage):
                for oid in message.relation_oids:
                    ordinal += 1
                    yield f"ep:{lsn}:{ordinal}", xid, "TRUNCATE", self.tables[oid], None, None
                continue
            ordinal += 1
            kind = type(message).__name__.removesuffix("Message").upper()
            table = str(message.relation)  # type: ignore[union-attr]
            yield f"ep:{lsn}:{ordinal}", xid, kind, table, cells(message, "old"), cells(message, "new")


# What has to be so, whatever was recorded.


@VERSIONS
def test_all_variants_say_the_same(version: int) -> None:
    """Streamed while it runs or sent at its commit, prepared or not: the same changes at the same positions."""
    mine = [each for each in RECORDINGS if each.version == version]
    text, binary = (
        [changes(each) for each in mine if ("binary" in each.variant or "parallel" in each.variant) is wanted]
        for wanted in (False, True)
    )
    assert all(each == text[0] for each in text)
    assert all(each == binary[0] for each in binary)
    assert [_place(event) for event in text[0]] == [_place(event) for event in binary[0]]


def _place(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["at"], event["event"], event["table"], sorted(event.get("new") or [])


@VERSIONS
def test_text_and_binary_cells_mean_the_same(version: int) -> None:
    """Where a type becomes a Python object that is no text, both forms become the same one."""
    if Types().binary_decoder(23) is bytes:
        pytest.skip("cells in binary form stay bytes")
    text, binary = (
        [dict(event.new) for event in values(Recording(version, variant)) if getattr(event, "new", None)]
        for variant in ("proto1-text", "proto1-binary")
    )
    compared = 0
    for one, other in zip(text, binary, strict=True):
        for name, value in one.items():
            if not isinstance(value, str) or isinstance(other[name], str):
                assert repr(value) == repr(other[name]), name
                compared += 1
    assert compared > 100


def values(recording: Recording) -> list[Any]:
    types = Types()
    frames = recording.frames()
    list(messages(frames, Decoder(types)))
    return list(events(frames, recording.spool(), types))


@ALL
def test_what_was_rolled_back_is_not_delivered(recording: Recording) -> None:
    told = json.dumps(changes(recording))
    assert "kept" in told or b"kept".hex() in told
    assert "never" not in told and b"never".hex() not in told
    if recording in STREAMED:
        sent = b"".join(recording.payloads())
        assert b"a, never" in sent and b"b, never" in sent


@ALL
def test_commits_are_delivered_in_their_order(recording: Recording) -> None:
    lsns = [int(event["at"].split(":")[1].split("/")[1], 16) for event in changes(recording)]
    assert lsns == sorted(lsns)
    for lsn in set(lsns):
        mine = [event["at"] for event, each in zip(changes(recording), lsns, strict=True) if each == lsn]
        assert [int(at.split(":")[2]) for at in mine] == list(range(1, len(mine) + 1))


WELLS = [
    ("INSERT", 1),
    ("INSERT", 2),
    ("INSERT", 3),
    ("UPDATE", 1),
    ("UPDATE", 10),
    ("UPDATE", 1),
    ("DELETE", 10),
    ("TRUNCATE", None),
    ("INSERT", 300),
    ("INSERT", 301),
    ("INSERT", 100),
    ("INSERT", 101),
    ("INSERT", 103),
    ("UPDATE", 103),
    ("UPDATE", 104),
    ("INSERT", 302),
    ("INSERT", 303),
]
PLAIN = [1, 2, "T", 3, "T", 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 18, 20, "T"]


@ALL
def test_the_changes_of_each_table(recording: Recording) -> None:
    found = [event for event in values(recording) if hasattr(event, "position")]

    def of(table: str) -> list[tuple[str, Any]]:
        return [(each.event_type, getattr(each, "key", None)) for each in found if each.table == table]

    if recording.variant not in ("proto1-binary", "proto4-parallel"):
        assert of("wells") == WELLS
        plain = [each for each in found if each.table == "plain"]
        assert ["T" if each.event_type == "TRUNCATE" else each.new["id"] for each in plain] == PLAIN
        assert of("sums") == [("INSERT", number) for number in (1, 2, 3, 4, 5, 7, 8)]
        assert of("indexed") == [("INSERT", "x"), ("UPDATE", "x"), ("UPDATE", "y"), ("DELETE", "y")]
    count = Counter(kind for table in ("wells", "plain", "sums", "indexed") for kind, _ in of(table))
    assert count == {"INSERT": 10 + 17 + 7 + 1, "UPDATE": 5 + 2, "DELETE": 1 + 1, "TRUNCATE": 1 + 3}
    assert of("days") and {each.table for each in found} >= {"days", "kinds", "wholes", "Log entries"}
    assert "days_24" not in {each.table for each in found}


@VERSIONS
def test_values_of_the_first_row(version: int) -> None:
    (first, *_) = values(Recording(version, "proto1-text"))
    assert (first.new["id"], first.new["name"], first.new["mood"]) == (1, "one", "calm")
    assert first.new["depth"] == Decimal("1.50"), "a domain is decoded as its base, by its Type message"
    assert first.new.text("place") == '(1,"a ""b""")' and first.new.text("moods") == "{calm,NULL,loud}"
    assert first.new["notes"] == "long " * 440


@VERSIONS
def test_a_value_that_was_not_sent_is_unknown_or_restored(version: int) -> None:
    found = values(Recording(version, "proto1-text"))
    renamed = next(each for each in found if each.table == "wells" and each.event_type == "UPDATE")
    assert renamed.new["notes"] is UNCHANGED and renamed.old is None
    whole = next(each for each in found if each.table == "wholes" and each.event_type == "UPDATE")
    assert whole.new["notes"] == whole.old["notes"] == "long " * 440


@VERSIONS
def test_generated_columns_come_from_18_on(version: int) -> None:
    sums = [each for each in values(Recording(version, "proto1-text")) if each.table == "sums"]
    assert dict(sums[0].new) == {"id": 1, "a": 21} | ({"b": 42} if version >= 18 else {})


@VERSIONS
def test_a_row_filter_makes_other_changes_of_updates(version: int) -> None:
    found = [each for each in changes(Recording(version, "proto1-text")) if each["table"] == "deep"]
    assert [each["event"] for each in found] == ([] if version < 15 else ["INSERT", "INSERT", "DELETE", "UPDATE"])


@ALL
def test_every_value_can_be_read(recording: Recording) -> None:
    for event in values(recording):
        for row in (getattr(event, "old", None), getattr(event, "new", None)):
            if row is not None:
                assert not any(isinstance(value, Undecoded) for value in dict(row).values())


@pytest.mark.parametrize("recording", TWO_PHASE, ids=str)
def test_prepared_transactions_are_told_of(recording: Recording) -> None:
    told = [(event["event"], event["gid"]) for event in delivered(recording) if "gid" in event]
    assert told == [
        ("PREPARED", "small, kept"),
        ("PREPARED", "small, never"),
        ("ROLLED BACK", "small, never"),
        ("PREPARED", "large, kept"),
        ("PREPARED", "large, never"),
        ("ROLLED BACK", "large, never"),
    ]


@ALL
def test_origins_are_named(recording: Recording) -> None:
    found = [json.loads(line) for line in recording.expected("messages") if '"Origin"' in line]
    assert {each["name"] for each in found} == {"elsewhere"}
    assert found[0]["commit_lsn"] == "0/ABCDEF"
