"""Decoding undoes encoding: every message, in and outside of stream blocks, one by one and in pieces."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc import UNCHANGED, DecodeError
from cdc.pgoutput import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    Decoder,
    DeleteMessage,
    InsertMessage,
    LogicalMessage,
    Message,
    Origin,
    Prepare,
    RelationColumn,
    RelationMessage,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    TruncateMessage,
    TypeMessage,
    UpdateMessage,
)
from cdc.relation import Relation
from cdc.row import Row
from tests.unit import wire

LSNS = st.integers(0, 2**64 - 1)
OIDS = st.integers(0, 2**32 - 1)
TIMES = st.integers(-62_000_000_000_000_000, 250_000_000_000_000_000)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
CELLS = st.none() | st.just(wire.UNSENT) | st.text(max_size=30) | st.binary(max_size=30)


@dataclass(frozen=True)
class Case:
    """A message in bytes, and what it says: its class and its fields, with rows as lists of cells."""

    data: bytes
    kind: type
    said: tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A relation that rows can be made for."""

    oid: int
    columns: tuple[tuple[str, int, bool], ...]


def said(message: Message) -> tuple[Any, ...]:
    """The fields of a message, with a relation as its OID and a row as its cells."""
    values = (getattr(message, field.name) for field in fields(message))
    return tuple(
        value.oid if isinstance(value, Relation) else list(value.cells) if isinstance(value, Row) else value
        for value in values
    )


def cell_of(value: Any) -> Any:
    return UNCHANGED if value is wire.UNSENT else value.encode() if isinstance(value, str) else value


def case(data: bytes, message: Message) -> Case:
    return Case(data, type(message), said(message))


@st.composite
def tables(draw: st.DrawFn, oid: int) -> Table:
    names = draw(st.lists(NAMES, max_size=5, unique=True))
    return Table(oid, tuple((name, draw(OIDS), draw(st.booleans())) for name in names))


@st.composite
def announcements(draw: st.DrawFn, table: Table, xid: int | None) -> Case:
    schema, name, identity = draw(NAMES), draw(NAMES), draw(st.sampled_from("dnfi"))
    modifier = draw(st.integers(-(2**31), 2**31 - 1))
    columns = tuple(RelationColumn(each, oid, modifier, key) for each, oid, key in table.columns)
    data = wire.relation(table.oid, table.columns, identity, name, schema, modifier)
    return case(data, RelationMessage(table.oid, schema or "pg_catalog", name, identity, columns, xid))


@st.composite
def rows(draw: st.DrawFn, table: Table, xid: int | None) -> Case:
    """An insert, update or delete of a table, and the cells that its rows have."""
    size = len(table.columns)
    cells = st.lists(CELLS, min_size=size, max_size=size)
    old, new, kind = draw(cells), draw(cells), draw(st.sampled_from("KO"))
    before: list[Any] = [cell_of(value) for value in old]
    after: list[Any] = [cell_of(value) for value in new]
    if kind == "K":
        before = [cell if key else UNCHANGED for cell, (_, _, key) in zip(before, table.columns, strict=True)]
    what = draw(st.sampled_from(["insert", "update", "update with old", "delete"]))
    if what == "insert":
        return Case(wire.insert(table.oid, *new), InsertMessage, (table.oid, after, xid))
    if what == "update":
        return Case(wire.update(table.oid, tuple(new)), UpdateMessage, (table.oid, None, None, after, xid))
    if what == "delete":
        return Case(wire.delete(table.oid, tuple(old), kind), DeleteMessage, (table.oid, kind, before, xid))
    if kind == "O":
        after = [one if cell is UNCHANGED else cell for cell, one in zip(after, before, strict=True)]
    data = wire.update(table.oid, tuple(new), tuple(old), kind)
    return Case(data, UpdateMessage, (table.oid, kind, before, after, xid))


@st.composite
def others_in_blocks(draw: st.DrawFn, xid: int | None) -> Case:
    """A message that may stand in a block and is neither of a row nor a Relation."""
    what = draw(st.sampled_from("YTM"))
    if what == "Y":
        oid, schema, name = draw(OIDS), draw(NAMES), draw(NAMES)
        return case(wire.type_message(oid, name, schema), TypeMessage(oid, schema or "pg_catalog", name, xid))
    if what == "T":
        oids, options = draw(st.lists(OIDS, max_size=4)), draw(st.integers(0, 3))
        message = TruncateMessage(tuple(oids), bool(options & 1), bool(options & 2), xid)
        return case(wire.truncate(oids, options), message)
    prefix, content, transactional, lsn = draw(NAMES), draw(st.binary(max_size=40)), draw(st.booleans()), draw(LSNS)
    message = LogicalMessage(transactional, lsn, prefix, content, xid)  # type: ignore[arg-type]
    return case(wire.logical(prefix, content, transactional, lsn), message)


@st.composite
def controls(draw: st.DrawFn, parallel: bool) -> Case:
    """A message that stands outside of blocks only."""
    lsn, end, time, later, xid, gid = (draw(each) for each in (LSNS, LSNS, TIMES, TIMES, OIDS, NAMES))
    sub = draw(OIDS)
    found: list[tuple[bytes, Any]] = [
        (wire.begin(lsn, xid, time), Begin(lsn, time, xid)),
        (wire.commit(lsn, end, time), Commit(lsn, end, time)),
        (wire.origin(lsn, gid), Origin(lsn, gid)),
        (wire.stream_commit(xid, lsn, end, time), StreamCommit(xid, lsn, end, time)),
        (wire.begin_prepare(lsn, end, gid, xid, time), BeginPrepare(lsn, end, time, xid, gid)),
        (wire.prepare(lsn, end, gid, xid, time), Prepare(lsn, end, time, xid, gid)),
        (wire.commit_prepared(lsn, end, gid, xid, time), CommitPrepared(lsn, end, time, xid, gid)),
        (wire.stream_prepare(lsn, end, gid, xid, time), StreamPrepare(lsn, end, time, xid, gid)),
        (wire.rollback_prepared(lsn, end, gid, xid, time, later), RollbackPrepared(lsn, end, time, later, xid, gid)),
    ]
    if parallel:
        found.append((wire.stream_abort(xid, sub, lsn, time), StreamAbort(xid, sub, lsn, time)))
    else:
        found.append((wire.stream_abort(xid, sub), StreamAbort(xid, sub)))
    return case(*draw(st.sampled_from(found)))


@st.composite
def contents(draw: st.DrawFn, table: Table, xid: int | None) -> Case:
    """Any message that may stand in a block, as it stands in the block of `xid`, or outside of blocks."""
    one = draw(announcements(table, xid) | rows(table, xid) | others_in_blocks(xid))
    return one if xid is None else Case(wire.in_block(xid, one.data), one.kind, one.said)


@st.composite
def stretches(draw: st.DrawFn, parallel: bool) -> list[Case]:
    """A table, announced, and messages of it: in a block or not."""
    xid = draw(st.none() | OIDS)
    table = draw(tables(draw(OIDS)))
    first = draw(announcements(table, xid))
    inside = draw(st.lists(contents(table, xid), max_size=4))
    if xid is None:
        return [first, *inside, *draw(st.lists(controls(parallel), max_size=3))]
    start = draw(st.booleans())
    origin = [case(wire.origin(0, "elsewhere"), Origin(0, "elsewhere"))] if start else []  # type: ignore[arg-type]
    return [
        case(wire.stream_start(xid, start), StreamStart(xid, start)),
        *origin,
        Case(wire.in_block(xid, first.data), first.kind, first.said),
        *inside,
        case(wire.stream_stop(), StreamStop()),
    ]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bool, list[Case]]:
    """Whether it is parallel streaming, and its messages."""
    parallel = draw(st.booleans())
    return parallel, [one for part in draw(st.lists(stretches(parallel), max_size=4)) for one in part]


def check(message: Message, expected: Case) -> None:
    assert type(message) is expected.kind
    assert said(message) == expected.said
    for row in (getattr(message, "old", None), getattr(message, "new", None)):
        if row is not None:
            assert len(dict(row)) == len(row)


GENEROUS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@GENEROUS
@given(conversations(), st.booleans())
def test_decoding_undoes_encoding(conversation: tuple[bool, list[Case]], framed: bool) -> None:
    parallel, cases = conversation
    decoder = Decoder(streaming="parallel" if parallel else "on")
    for one in cases:
        check(decoder.decode(wire.xlog(one.data) if framed else one.data), one)


@GENEROUS
@given(conversations(), st.data())
def test_pieces_cut_anywhere_give_the_same(conversation: tuple[bool, list[Case]], draw: st.DataObject) -> None:
    parallel, cases = conversation
    whole = b"".join(one.data + b"\n" for one in cases)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    decoder = Decoder(streaming="parallel" if parallel else "on")
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    messages = [message for piece in pieces for message in decoder.feed(piece)]
    assert len(messages) == len(cases) and decoder.pending == 0
    for message, one in zip(messages, cases, strict=True):
        check(message, one)


@GENEROUS
@given(conversations(), st.data())
def test_an_error_leaves_the_decoder_as_before(conversation: tuple[bool, list[Case]], draw: st.DataObject) -> None:
    parallel, cases = conversation
    decoder = Decoder(streaming="parallel" if parallel else "on")
    for one in cases:
        bad = draw.draw(st.sampled_from([one.data[:-1], one.data + b"x", b"", b"?", b"c", b"I\0\0"]))
        with pytest.raises(DecodeError):
            decoder.decode(bad)
        check(decoder.decode(one.data), one)
