"""The checks of recorded streams: sound ones of PostgreSQL 14 to 18 pass, and no damage goes unnoticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import cdc
from cdc.recording import Batch, End, Recording, Told
from cdc.testing import check_recording, check_stream, replay
from cdc.testing.replay_checks import StreamChecks
from tests.replayed import changed, header, made_of, written
from tests.wire.recording import Recording as Wire
from tests.wire.recording import recordings, shown_event

ALL = pytest.mark.parametrize("wire", recordings(), ids=str)
NEWEST = Wire(18, "proto1-text")
SOME = pytest.mark.parametrize("wire", [NEWEST, Wire(14, "proto2-streaming")], ids=str)


def recorded(wire: Wire, path: Path) -> Path:
    return made_of(sent(wire), wire.streaming, path / "stream.cdc")


def sent(wire: Wire) -> list[bytes]:
    """The frames, but no logical messages where a consumer would read a streamed transaction again because of them."""
    return [frame for frame in wire.frames() if wire.streaming == "off" or frame[25:26] != b"M"]


def tables(path: Path) -> tuple[str, ...]:
    return replay(path).tables


@ALL
def test_what_servers_sent_is_sound(wire: Wire, tmp_path: Path) -> None:
    found = check_recording(recorded(wire, tmp_path))
    assert found.problems == [] and found.is_sound
    assert found.frames == len(sent(wire)) and found.events > 10


@ALL
def test_a_replay_gives_the_events_of_the_frames(wire: Wire, tmp_path: Path) -> None:
    path = recorded(wire, tmp_path)
    again, lines = replay(path), []
    for table in tables(path):
        again.subscribe(
            table, lambda event: lines.append(shown_event(event)) if isinstance(event, cdc.Change) else None
        )
    again.run()
    assert lines == [line for line in wire.expected("events") if "at" in json.loads(line)]


# Damage.


def frames_of(records: list[Any]) -> list[int]:
    return [index for index, record in enumerate(records) if isinstance(record, Batch)]


def remove(records: list[Any], index: int) -> None:
    del records[index]


def double(records: list[Any], index: int) -> None:
    records.insert(index, records[index])


def swap(records: list[Any], index: int) -> None:
    other = next((later for later in frames_of(records) if later > index), None) or frames_of(records)[0]
    records[index], records[other] = records[other], records[index]


@SOME
@pytest.mark.parametrize("damage", [remove, double, swap])
def test_no_damage_of_a_frame_goes_unnoticed(wire: Wire, damage: Callable[..., None], tmp_path: Path) -> None:
    """Each frame in turn, whatever it is."""
    path = recorded(wire, tmp_path)
    places = frames_of(list(Recording(path)))
    for index in places[:: max(1, len(places) // 60)]:
        found = check_recording(changed(path, lambda records, index=index: damage(records, index)))
        assert not found.is_sound, index


@pytest.mark.parametrize(
    ("kind", "damage", "words"),
    [
        (b"B", remove, "outside of a transaction|a commit without its begin"),
        (b"C", remove, "the one before it has not ended"),
        (b"R", remove, "no Relation message announced|is damaged"),
        (b"I", double, "is, to the microsecond, the frame before it"),
        (b"C", double, "a commit without its begin"),
        (b"B", double, "the one before it has not ended"),
    ],
)
def test_the_protocol_tells_of_frames_whose_numbers_are_right(
    kind: bytes, damage: Callable[..., None], words: str, tmp_path: Path
) -> None:
    path = recorded(NEWEST, tmp_path)
    records = list(Recording(path))
    index = next(i for i in frames_of(records) if records[i].frames[0][25:26] == kind)
    found = check_recording(changed(path, lambda all_: damage(all_, index), renumber=True))
    assert any(part in problem for part in words.split("|") for problem in found.problems), found.problems


def test_whole_transactions_that_change_places_are_found(tmp_path: Path) -> None:
    path = recorded(NEWEST, tmp_path)

    def exchange(records: list[Any]) -> None:
        begins = [i for i in frames_of(records) if records[i].frames[0][25:26] == b"B"]
        first, second, third = begins[-3:]
        records[first:third] = records[second:third] + records[first:second]

    found = check_recording(changed(path, exchange, renumber=True))
    assert any("follows one at" in problem for problem in found.problems)


def test_changes_of_a_transaction_that_change_places_are_found(tmp_path: Path) -> None:
    path = recorded(NEWEST, tmp_path)
    records = list(Recording(path))
    rows = [i for i in frames_of(records) if records[i].frames[0][25:26] in (b"I", b"U", b"D")]
    pairs = pairwise(rows)
    first, second = next(
        (a, b) for a, b in pairs if b == a + 1 and records[a].frames[0][1:9] < records[b].frames[0][1:9]
    )

    def exchange(records: list[Any]) -> None:
        records[first], records[second] = records[second], records[first]

    found = check_recording(changed(path, exchange, renumber=True))
    assert any("a transaction goes back from" in problem for problem in found.problems)


def test_a_keepalive_that_goes_backwards_is_found(tmp_path: Path) -> None:
    def alive(lsn: int, number: int) -> Batch:
        return Batch(number, 0, (b"k" + lsn.to_bytes(8, "big") + bytes(9),))

    path = recorded(NEWEST, tmp_path)

    def add(records: list[Any]) -> None:
        records[-1:] = [alive(2**40, 0), alive(2**40 - 1, 0), records[-1]]

    found = check_recording(changed(path, add, renumber=True))
    assert any("the LSN of a keepalive goes back" in problem for problem in found.problems)


def test_a_server_that_reads_again_before_it_sends_is_sound(tmp_path: Path) -> None:
    """Its first keepalive has the confirmed LSN, the next one that from which it reads."""
    alive = [
        Batch(number, 0, (b"k" + lsn.to_bytes(8, "big") + bytes(9),)) for number, lsn in ((1, 90), (2, 30), (3, 95))
    ]
    path = written(tmp_path / "a", [replace(header(()), start_lsn=cdc.Lsn(90)), *alive, End("closed", 3)])
    assert check_recording(path).is_sound


def test_an_end_that_is_missing_is_found(tmp_path: Path) -> None:
    path = recorded(NEWEST, tmp_path)
    found = check_recording(changed(path, lambda records: records.__delitem__(slice(-6, -1))))
    assert any("the conversation ends with frame" in problem for problem in found.problems)


def test_the_answer_of_another_relation_is_found(tmp_path: Path) -> None:
    path = recorded(NEWEST, tmp_path)

    def exchange(records: list[Any]) -> None:
        index = next(i for i, record in enumerate(records) if isinstance(record, Told))
        records[index] = replace(records[index], message=replace(records[index].message, oid=1))

    found = check_recording(changed(path, exchange))
    assert any("was announced, and not described" in problem for problem in found.problems)


# Events.


@pytest.fixture
def events(tmp_path: Path) -> list[Any]:
    path = recorded(NEWEST, tmp_path)
    found = max((list(replay(path).events(table)) for table in tables(path)), key=len)
    assert len(found) > 5
    return found


def test_events_in_their_order_are_sound(events: list[Any]) -> None:
    found = check_stream(events)
    assert found.is_sound and found.events == len(events) and found.again == 0


def test_every_event_that_is_missing_doubled_or_elsewhere_is_found(events: list[Any]) -> None:
    for index in range(len(events) - 1):
        assert not check_stream(events[: index + 1] + events[index:]).is_sound, index
        swapped = [*events[:index], events[index + 1], events[index], *events[index + 2 :]]
        assert not check_stream(swapped).is_sound, index
        rest = events[:index] + events[index + 1 :]
        if isinstance(events[index], cdc.SchemaChange):
            checks = StreamChecks(whole=True)
            for event in rest:
                checks.see(event)
            assert not checks.found.is_sound
        elif index:
            assert not check_stream(rest).is_sound, index


def test_a_restart_may_deliver_again(events: list[Any]) -> None:
    assert not check_stream(events + events).is_sound
    found = check_stream(events + events, restarts=True)
    changes = [event for event in events if isinstance(event, cdc.Change)]
    assert found.is_sound and found.again == len(changes)


def test_another_epoch_needs_a_gap(events: list[Any]) -> None:
    class Elsewhere:
        position = cdc.Position("other", cdc.Lsn(1), 1)
        previous = events[-1].position
        relation = events[-1].relation

    other: Any = Elsewhere()
    assert "another epoch" in check_stream([*events, other]).problems[0]
    gap = cdc.Gap("lost", events[-1].position, events[-1].position)
    assert check_stream([*events, gap, other]).is_sound


def test_the_file_knows_how_many_frames_there_were(tmp_path: Path) -> None:
    *_, end = Recording(recorded(NEWEST, tmp_path))
    assert end == End("closed", len(NEWEST.frames()))
