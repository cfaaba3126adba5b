"""Damaged frames: each prefix and each changed byte of what was recorded gives a value or an error of ours.

Prefixes are tried all; a byte is replaced by a few others, so that the whole takes some seconds. `make fuzz` does more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from cdc import DecodeError, Lsn
from cdc.events import RowChange
from cdc.pgoutput import Decoder, Message
from cdc.row import Row
from cdc.spool import MemoryOrFile
from tests.unit import wire
from tests.wire.recording import Conversation, recordings

IN_BLOCKS = b"RYIUDTM"
HEADER = 25
KINDS = "BCORYIUDTMSEcAbPKrp"
REPLACEMENTS: tuple[Callable[[int], int], ...] = (
    lambda byte: byte ^ 1,
    lambda byte: byte ^ 0x80,
    lambda byte: 0,
    lambda byte: 255,
    lambda byte: ord("n"),
)


class Case:
    """A recorded frame, and what came before it on its connection."""

    def __init__(self, frame: bytes, decoder: Decoder, block: int | None) -> None:
        self.frame = frame
        self.block = block
        self._types, self._relations = decoder._types, dict(decoder.relations)
        self._streamed = {xid: dict(relations) for xid, relations in decoder._streamed.items()}

    def decoder(self) -> Decoder:
        """A decoder as it stood before the frame."""
        decoder = Decoder(self._types)
        decoder.relations = dict(self._relations)
        decoder._block = self.block
        decoder._streamed = {xid: dict(relations) for xid, relations in self._streamed.items()}
        return decoder

    def receive(self, frame: bytes) -> Iterator[Any]:
        """The events of a frame in a conversation that stands as it did; a block is ended and committed."""
        conversation = Conversation(MemoryOrFile(1 << 20), self._types)
        conversation.stream.relations = dict(self._relations)
        kind = self.frame[HEADER : HEADER + 1]
        before: list[bytes] = []
        after: list[bytes] = []
        if self.block is not None or kind in b"cAp":
            at = HEADER + (26 if kind == b"p" else 1)
            xid = self.block or int.from_bytes(self.frame[at : at + 4], "big")
            relations = self._streamed.get(xid, {})
            conversation.stream.relations |= {oid: relation for oid, (_, relation) in relations.items()}
            before = [wire.stream_start(xid)]
            if self.block is None:
                before.append(wire.stream_stop())
            elif kind != b"E":
                after = [wire.stream_stop(), wire.stream_commit(xid, 10, 20)]
        elif kind in b"IUDTMC":
            before = [wire.begin(10)]
        elif kind == b"P":
            before = [wire.begin_prepare(10, 20, "gid")]
        for each in before:
            assert list(conversation.receive(wire.xlog(each))) == []
        yield from conversation.receive(frame)
        for each in after:
            yield from conversation.receive(wire.xlog(each))


@cache
def cases() -> list[Case]:
    """Every recorded frame that differs from the others in more than its header."""
    found: list[Case] = []
    seen = set()
    for recording in recordings():
        decoder = Decoder()
        for frame in recording.frames():
            if frame[:1] != b"w":
                continue
            known = (decoder._block is None, frame[HEADER:])
            if known not in seen and len(frame) < 700:
                seen.add(known)
                found.append(Case(frame, decoder, decoder._block))
            decoder.decode(frame)
    return found


def of(kind: str) -> list[Case]:
    return [case for case in cases() if chr(case.frame[HEADER]) == kind]


def read(owner: object) -> None:
    """Read every value of a change's rows."""
    for name in ("old", "new"):
        row = getattr(owner, name, None)
        if isinstance(row, Row):
            assert len(dict(row)) == len(row)


def decode(decoder: Decoder, frame: bytes) -> Message | None:
    """The message, None for an error; an error names its place."""
    try:
        message = decoder.decode(frame)
    except DecodeError as error:
        assert 0 <= error.offset <= len(frame) - HEADER
        assert error.kind == (chr(frame[HEADER]) if len(frame) > HEADER else None)
        assert error.lsn == Lsn.from_bytes(frame[1:9])
        assert str(error.lsn) in str(error)
        return None
    read(message)
    return message


def receive(case: Case, frame: bytes) -> bool:
    """Whether the stream takes the frame, with all that follows from it."""
    try:
        for event in case.receive(frame):
            if isinstance(event, RowChange):
                read(event)
    except DecodeError as error:
        assert str(error)
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_of_a_message_is_an_error(kind: str) -> None:
    for case in of(kind):
        decoder = case.decoder()
        for length in range(HEADER, len(case.frame)):
            short_abort = kind == "A" and length == HEADER + 9
            if short_abort:
                assert decode(case.decoder(), case.frame[:length]) is not None
            else:
                assert decode(decoder, case.frame[:length]) is None
                assert not receive(case, case.frame[:length])


@pytest.mark.parametrize("kind", KINDS)
def test_more_bytes_than_the_message_are_an_error(kind: str) -> None:
    for case in of(kind):
        assert decode(case.decoder(), case.frame + b"\0") is None
        if kind not in "IUD" and case.block is None:
            assert not receive(case, case.frame + b"\0")


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_gives_a_message_or_an_error(kind: str) -> None:
    for case in of(kind):
        decoder = case.decoder()
        assert decode(case.decoder(), case.frame) is not None and receive(case, case.frame)
        for at in range(HEADER, len(case.frame)):
            for number, replace in enumerate(REPLACEMENTS):
                other = replace(case.frame[at])
                frame = case.frame[:at] + bytes([other]) + case.frame[at + 1 :]
                if decode(decoder, frame) is not None:
                    decoder = case.decoder()
                if number == at % len(REPLACEMENTS):
                    receive(case, frame)


def test_every_prefix_of_a_frame_is_an_error_to_the_stream() -> None:
    for case in cases()[::20]:
        for length in range(HEADER + 1):
            assert not receive(case, case.frame[:length])


@pytest.mark.parametrize("length", range(18))
def test_a_prefix_of_a_keepalive_is_an_error(length: int) -> None:
    keepalive = next(frame for frame in recordings()[0].frames() if frame[:1] == b"k")
    assert len(keepalive) == 18
    with pytest.raises(DecodeError):
        Conversation(MemoryOrFile(0)).stream.receive(keepalive[:length])
    with pytest.raises(DecodeError, match="behind the end"):
        Conversation(MemoryOrFile(0)).stream.receive(keepalive + bytes(length + 1))
