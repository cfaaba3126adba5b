"""The file of a recorded stream: what is written is read, and whatever a crash leaves of it is recognised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

import cdc
from cdc import Gap, GapKind, Lsn, Position
from cdc.pgoutput import RelationColumn, RelationMessage
from cdc.recording import MAGIC, Batch, Conversation, End, Recording, Told, packed
from cdc.values import TypeInfo
from tests.replayed import header, written

MESSAGE = RelationMessage(
    7, "public", 'W"ells', "f", (RelationColumn("id", 23, -1, True), RelationColumn("é", 9, 4, True))
)
TOLD = Told(MESSAGE, ("id",), None, (TypeInfo(9, "s", "pair", "c", attributes=(("a", 23), ("b", 25))),), ("é",))
FULL = replace(
    header((("public", "wells", 7),)),
    position=Position("ep", Lsn(5), 2),
    skip=(Lsn(2**40), 3),
    messages=True,
    gap=Gap(
        "a reason", Position("ep", Lsn(4), 1), None, GapKind.SLOT_LOST, ("public.wells",), Position("e2", Lsn(6), 0)
    ),
    decoders=("hstore",),
    relations=(TOLD,),
    start_lsn=Lsn(2**63),
)
RECORDS: list[Any] = [
    header(()),
    FULL,
    Batch(1, -5, (b"", b"w" * 30, bytes(300))),
    TOLD,
    Batch(4, 2**60, ()),
    End("closed", 3),
    End("lost", 2**40, Lsn(9), Position("ep", Lsn(9), 9)),
    End("stopped", 7, Lsn(9), None, (Lsn(5), Lsn(4), Lsn(2**64 - 1))),
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    recording = Recording(written(tmp_path / "a", RECORDS))
    assert list(recording) == RECORDS and recording.note is None
    assert list(recording) == RECORDS  # and once more
    assert recording.sound == recording.path.stat().st_size
    assert recording.conversations() == RECORDS[:2]
    assert list(Recording(written(tmp_path / "b", []))) == []


def test_a_file_may_be_cut_off_at_every_byte(tmp_path: Path) -> None:
    whole = written(tmp_path / "a", RECORDS).read_bytes()
    ends = [len(MAGIC)]
    for record in RECORDS:
        ends.append(ends[-1] + len(packed(record)))
    path = tmp_path / "cut"
    for size in range(len(MAGIC), len(whole)):
        path.write_bytes(whole[:size])
        recording = Recording(path)
        count = sum(end <= size for end in ends) - 1
        assert list(recording) == RECORDS[:count]
        assert recording.sound == ends[count] and (recording.note is None) == (size in ends)


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    whole = bytearray(written(tmp_path / "a", RECORDS).read_bytes())
    path = tmp_path / "changed"
    for place in range(len(MAGIC), len(whole), 3):
        changed = bytes(whole[:place]) + bytes([whole[place] ^ 0x10]) + bytes(whole[place + 1 :])
        path.write_bytes(changed)
        recording = Recording(path)
        try:
            assert list(recording) != RECORDS and recording.note is not None
        except cdc.CdcError as error:
            assert "is damaged at byte" in str(error)


def test_a_record_that_says_something_else_is_damage(tmp_path: Path) -> None:
    for payload in (b"F\0\0\0\1x", b"C\0\0\0\2{}", b"R\0\0\0\1{", b"Q\0\0\0\2{}", b"E\0\0\0\2[]"):
        path = tmp_path / "other"
        path.write_bytes(MAGIC + payload + crc32(payload).to_bytes(4, "big") + packed(End("closed", 0)))
        with pytest.raises(cdc.CdcError, match="is damaged at byte 16"):
            list(Recording(path))


@pytest.mark.parametrize("start", [b"", b"cdc", b"{}\n", bytes(100), b"cdc recording x"])
def test_another_file_is_refused(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(start)
    with pytest.raises(cdc.ConfigurationError, match="is not a recording|is a recording of format x"):
        Recording(path)


def test_what_a_later_release_adds_is_passed_over() -> None:
    assert Conversation.read(FULL.written() | {"colour": "red"}) == FULL
