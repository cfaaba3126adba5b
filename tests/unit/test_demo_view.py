"""The demo's ledger and its live view, fed with events made by hand."""

from __future__ import annotations

import io
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

import cdc
from cdc.demo.ledger import Ledger, percentile
from cdc.demo.scene import Glance
from cdc.demo.setting import LAB, PROJECTS
from cdc.demo.view import Picture, progress
from cdc.relation import Column, Relation
from cdc.transaction import Transaction

NORTH, SOUTH = PROJECTS["North"], PROJECTS["South"]
DECODERS: dict[str, Callable[[bytes], object]] = {
    "id": int,
    "name": bytes.decode,
    "project_id": lambda cell: UUID(cell.decode()),
    "depth": lambda cell: Decimal(cell.decode()),
    "status": bytes.decode,
    "revision": int,
}
COLUMNS = tuple(Column(name, 25, -1, True, decode) for name, decode in DECODERS.items())
WELLS = Relation(1, "public", "wells", "f", COLUMNS, (0,))
STANDARD = {"id": 7, "name": "31/2-A5", "project_id": NORTH, "depth": "1200.50", "status": "planned", "revision": 1}


def row(**values: Any) -> cdc.Row:
    cells = [None if value is None else str(value).encode() for value in (STANDARD | values).values()]
    return cdc.Row.of_cells(WELLS.whole, cells)


def transaction(xid: int, age: float = 0.0) -> Transaction:
    committed = time.time() - age - datetime(2000, 1, 1, tzinfo=UTC).timestamp()
    return Transaction("e", xid, cdc.Lsn(0x1000 + xid), int(committed * 1_000_000))


def insert(xid: int, **values: Any) -> cdc.Insert:
    return cdc.Insert((transaction(xid), 1), WELLS, None, row(**values), cdc.Effect.ENTER)


def update(xid: int, old: cdc.Row | None, new: cdc.Row | None, effect: cdc.Effect) -> cdc.Update:
    return cdc.Update((transaction(xid), 1), WELLS, old, new, effect)


def delete(xid: int, **values: Any) -> cdc.Delete:
    return cdc.Delete((transaction(xid), 1), WELLS, row(**values), None, cdc.Effect.LEAVE)


def moved_out(ledger: Ledger, xid: int) -> None:
    before, after = row(), row(project_id=SOUTH)
    ledger.trusted(update(xid, before, after, cdc.Effect.STAY))
    ledger.user(update(xid, before, None, cdc.Effect.LEAVE))


def test_ledger_keeps_order_rows_and_effects() -> None:
    ledger = Ledger()
    ledger.trusted(insert(700))
    ledger.user(insert(700))
    moved_out(ledger, 703)
    ledger.trusted(insert(701, id=8, project_id=LAB))
    assert ledger.delivered == [("I", 700), ("U", 703), ("I", 701)]
    trusted, user = ledger.told["trusted"], ledger.told["user"]
    assert sorted(trusted.rows) == [7, 8]
    assert trusted.rows[7]["project_id"] == SOUTH
    assert user.rows == {}
    assert (user.delivered, user.updates(cdc.Effect.LEAVE), user.updates(cdc.Effect.ENTER)) == (2, 1, 0)
    assert user.total(cdc.Effect.ENTER) == 1
    assert [sorted(line.effects) for line in ledger.lines] == [["user"], ["user"], []]
    assert list(ledger.recent) == [7, 7, 8]


def test_ledger_sees_a_well_that_must_not_be_shown() -> None:
    ledger = Ledger()
    ledger.user(insert(700))
    ledger.user(delete(701))
    assert ledger.told["user"].foreign == 0
    ledger.user(insert(702, project_id=SOUTH))
    ledger.user(update(703, row(project_id=SOUTH), row(), cdc.Effect.STAY))
    ledger.anon(insert(704))
    assert (ledger.told["user"].foreign, ledger.told["anon"].foreign) == (2, 1)


def test_ledger_notes_a_gap_and_a_truncate() -> None:
    ledger = Ledger()
    ledger.trusted(insert(700))
    ledger.trusted(cdc.Truncate((transaction(701), 1), WELLS, False, False))
    ledger.user(cdc.Truncate((transaction(701), 1), WELLS, False, False))
    ledger.trusted(cdc.Gap("the slot was lost"))
    ledger.anon(cdc.Gap("the slot was lost"))
    assert ledger.delivered == [("I", 700), ("T", 701)]
    assert ledger.told["trusted"].rows == {}
    assert ledger.gaps == ["the slot was lost"] * 2


def test_latency_is_counted_from_the_commit() -> None:
    ledger = Ledger()
    ledger.trusted(cdc.Insert((transaction(700, age=5.0), 1), WELLS, None, row(), cdc.Effect.ENTER))
    assert ledger.latencies[0] >= 5.0


def test_percentiles() -> None:
    assert percentile(array("d"), 0.5) is None
    assert percentile(array("d", [4.0]), 0.99) == 4.0
    samples = array("d", [float(number) for number in range(100, 0, -1)])
    assert (percentile(samples, 0.5), percentile(samples, 0.99), percentile(samples, 1.0)) == (51.0, 100.0, 100.0)


def glance(ledger: Ledger, elapsed: float = 4.0) -> Glance:
    health = cdc.Health(cdc.Colour.GREEN, cdc.Status.LIVE, slot="cdc_demo", received_lsn=cdc.Lsn(0x1234567))
    return Glance(
        elapsed=elapsed, seconds=15, version="18.1", health=health, delivered=len(ledger.delivered),
        told=ledger.told, lines=list(ledger.lines), hits=123_456, misses=31_000, invalidations=98_765,
        reads=154_456, reads_after_wait=4_321, stale=0, p50=0.0123, p99=0.1234,
        transactions=12_345, rollbacks=1_234, saying=["SAVEPOINT: 3 deletes undone, 2 wells"],
    )  # fmt: skip


def drawn(picture: Picture, seen: Glance, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    lines = console.render_lines(picture.draw(seen), console.options.update_dimensions(width, height), pad=True)
    return ["".join(segment.text for segment in line) for line in lines]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (160, 50)])
def test_picture_fits_the_terminal(width: int, height: int) -> None:
    ledger = Ledger()
    ledger.trusted(insert(700))
    ledger.user(insert(700))
    moved_out(ledger, 703)
    lines = drawn(Picture(), glance(ledger), width, height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    words = (
        "11 s left",
        "anon: none",
        "user",
        "anon",
        "trusted",
        "LIVE",
        "cdc_demo",
        "0/1234567",
        "12.3 ms (p50)",
        "123.4 ms (p99)",
    )
    assert [word for word in words if word not in text] == []
    assert "80%" in text
    assert "98,765" in text
    assert "…" not in text.replace("… that were stale", "")


def test_picture_shows_who_sees_what() -> None:
    ledger = Ledger()
    moved_out(ledger, 703)
    [line] = [line for line in drawn(Picture(), glance(ledger), 80, 24) if "well 7" in line]
    assert "North → South" in line
    assert line.split()[-5:] == ["South", "STAY", "LEAVE", "·", "│"]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (insert(700), "INSERT well 7     31/2-A5 in North"),
        (insert(700, project_id=UUID(int=0)), "31/2-A5 in ?"),
        (delete(700, project_id=LAB), "DELETE well 7     31/2-A5 in the lab"),
        (update(700, row(id=3), row(), cdc.Effect.STAY), "UPDATE well 7     was well 3: a new key"),
        (update(700, row(), row(depth="1210.00"), cdc.Effect.STAY), "1200.50 → 1210.00 m in North"),
        (update(700, row(), row(status=None), cdc.Effect.STAY), "planned → no status in North"),
        (update(700, row(), row(revision=1234), cdc.Effect.STAY), "revision 1,234 in North"),
        (cdc.Truncate((transaction(700), 1), WELLS, False, False), "all of wells"),
    ],
)
def test_each_change_has_its_words(event: cdc.Change, words: str) -> None:
    ledger = Ledger()
    ledger.trusted(event)
    assert words in "\n".join(drawn(Picture(), glance(ledger), 80, 24))


def test_list_is_slow_enough_to_read_and_shows_each_sort() -> None:
    ledger, picture = Ledger(), Picture()
    for xid in range(700, 800):
        ledger.trusted(insert(xid))
    moved_out(ledger, 800)
    first = drawn(picture, glance(ledger, 1.0), 80, 24)
    assert sum("well 7" in line for line in first) == 1
    ledger.trusted(insert(801))
    moved_out(ledger, 802)
    assert sum("well 7" in line for line in drawn(picture, glance(ledger, 1.1), 80, 24)) == 1
    later = drawn(picture, glance(ledger, 2.0), 80, 24)
    assert [line.split()[1] for line in later if "well 7" in line] == ["INSERT", "UPDATE"]
    # Nothing has come since: nothing is added.
    assert drawn(picture, glance(ledger, 3.0), 80, 24)[5:13] == later[5:13]


def test_rate_counts_the_last_two_seconds() -> None:
    picture, ledger = Picture(), Ledger()
    counts: Sequence[tuple[float, int]] = [(1.0, 1000), (2.0, 1500), (3.0, 1800), (4.0, 1900)]
    for elapsed, delivered in counts:
        lines = drawn(picture, replace(glance(ledger, elapsed), delivered=delivered), 80, 24)
    assert "200 changes/s" in "\n".join(lines)


def test_progress_is_one_line() -> None:
    ledger = Ledger()
    moved_out(ledger, 703)
    line = progress(glance(ledger))
    assert "\n" not in line
    assert "1 changes delivered, 1 of them to the user, 0 to anon" in line
    assert "12.3 ms (p50)" in line
