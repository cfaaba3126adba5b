"""The demo's verdict: each condition, once false, fails with a message of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

import cdc
from cdc.demo.ledger import Told
from cdc.demo.report import print_report, summary
from cdc.demo.verify import Evidence, verify

TABLE = {1: {"id": 1, "depth": 10}, 2: {"id": 2, "depth": None}, 3: {"id": 3, "depth": 30}}
KEYS = {
    "committed", "delivered", "by_subject", "enters", "leaves", "denied", "reads", "reads_after_wait", "hits",
    "invalidations", "stale_reads", "latency_ms", "ok",
}  # fmt: skip


def told(rows: dict[int, Any], delivered: int) -> Told:
    each = Told(rows=rows, delivered=delivered)  # type: ignore[arg-type]  # a dict reads like a row
    each.effects["UPDATE", cdc.Effect.ENTER] = 1
    each.effects["UPDATE", cdc.Effect.LEAVE] = 2
    return each


def good() -> Evidence:
    changes = [("I", 700), ("U", 700), ("D", 702), ("I", 701)]
    rows = {key: dict(row) for key, row in TABLE.items()}
    return Evidence(
        committed=changes,
        delivered=list(changes),
        told={"trusted": told(rows, 4), "user": told({2: dict(TABLE[2])}, 3), "anon": Told()},
        table=TABLE,
        allowed={"user": {2: TABLE[2]}, "anon": {}},
        reads=100,
        reads_after_wait=10,
        stale=0,
        backward=0,
        hits=80,
        misses=20,
        invalidations=4,
        p50=0.0012,
        p99=0.02345,
    )


def test_good_evidence_passes() -> None:
    evidence = good()
    checks = verify(evidence)
    assert [check.problem for check in checks if not check.ok] == []
    result = summary(evidence, checks)
    assert result.keys() >= KEYS
    assert result["ok"] is True
    assert result["by_subject"] == {"user": 3, "anon": 0}
    assert (result["denied"], result["enters"], result["leaves"]) == (1 + 4, 1, 2)
    assert result["latency_ms"] == {"p50": 1.2, "p99": 23.45}


def nothing_committed(evidence: Evidence) -> None:
    evidence.committed = evidence.delivered = []


def one_lost(evidence: Evidence) -> None:
    evidence.delivered = evidence.delivered[:-1]


def one_twice(evidence: Evidence) -> None:
    evidence.delivered = [*evidence.delivered, evidence.delivered[-1]]


def two_kinds_swapped(evidence: Evidence) -> None:
    first, second, *rest = evidence.delivered
    evidence.delivered = [second, first, *rest]


def two_transactions_swapped(evidence: Evidence) -> None:
    evidence.delivered = [("I", 701), ("U", 700), ("D", 702), ("I", 700)]


def row_lost(evidence: Evidence) -> None:
    del evidence.told["trusted"].rows[3]


def row_left_over(evidence: Evidence) -> None:
    evidence.told["trusted"].rows[9] = {"id": 9}  # type: ignore[assignment]


def value_wrong(evidence: Evidence) -> None:
    evidence.told["trusted"].rows[2] = {"id": 2, "depth": 7}  # type: ignore[assignment]


def column_lost(evidence: Evidence) -> None:
    evidence.told["trusted"].rows[2] = {"id": 2}  # type: ignore[assignment]  # NULL is not the same as absent


def user_lacks(evidence: Evidence) -> None:
    evidence.allowed = {"user": {2: TABLE[2], 3: TABLE[3]}, "anon": {}}


def anon_has(evidence: Evidence) -> None:
    evidence.told["anon"].rows[1] = TABLE[1]  # type: ignore[assignment]


def user_sees_nothing(evidence: Evidence) -> None:
    evidence.told["user"].rows.clear()
    evidence.allowed = {"user": {}, "anon": {}}


def user_sees_all(evidence: Evidence) -> None:
    evidence.told["user"].rows.update(TABLE)  # type: ignore[arg-type]
    evidence.allowed = {"user": TABLE, "anon": {}}


def foreign_shown(evidence: Evidence) -> None:
    evidence.told["anon"].foreign = 1


def nobody_denied(evidence: Evidence) -> None:
    evidence.told["user"].delivered = evidence.told["anon"].delivered = 4


def none_entered(evidence: Evidence) -> None:
    effects = evidence.told["user"].effects
    effects["INSERT", cdc.Effect.ENTER] = effects.pop(("UPDATE", cdc.Effect.ENTER))


def none_left(evidence: Evidence) -> None:
    effects = evidence.told["user"].effects
    effects["DELETE", cdc.Effect.LEAVE] = effects.pop(("UPDATE", cdc.Effect.LEAVE))


def stale_read(evidence: Evidence) -> None:
    evidence.stale = 1


def nobody_waited(evidence: Evidence) -> None:
    evidence.reads_after_wait = 0


def read_went_back(evidence: Evidence) -> None:
    evidence.backward = 2


def writer_died(evidence: Evidence) -> None:
    evidence.troubles.append("the writer: it ended with exit code 1")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (nothing_committed, "committed nothing"),
        (one_lost, "1 changes were committed and never delivered"),
        (one_twice, "1 changes were delivered that the second slot does not know"),
        (two_kinds_swapped, "Change number 1 should be 'I' of transaction 700; 'U' of transaction 700 was"),
        (two_transactions_swapped, "Change number 1 should be 'I' of transaction 700; 'I' of transaction 701 was"),
        (row_lost, "The trusted copy is not the same as the table. Well 3 is missing"),
        (row_left_over, "Well 9 is in the copy and should not be"),
        (value_wrong, "Well 2 differs in depth"),
        (column_lost, "Well 2 differs in depth"),
        (user_lacks, "The user's copy is not the same as a SELECT as the user. Well 3 is missing"),
        (anon_has, "anon's copy is not the same as a SELECT as anon. Well 1 is in the copy"),
        (user_sees_nothing, "The user sees no well"),
        (user_sees_all, "The user sees every well"),
        (foreign_shown, "1 changes showed a well to somebody who may not see it"),
        (nobody_denied, "No change was withheld"),
        (none_entered, "No UPDATE moved a well into"),
        (none_left, "No UPDATE moved a well out of"),
        (stale_read, "1 of 10 reads gave a value older than a write"),
        (nobody_waited, "Nobody read a value after waiting"),
        (read_went_back, "2 reads gave an older value"),
        (writer_died, "the writer: it ended with exit code 1"),
    ],
)
def test_each_condition_fails_by_itself(spoil: Callable[[Evidence], None], problem: str) -> None:
    evidence = good()
    spoil(evidence)
    checks = verify(evidence)
    problems = [check.problem for check in checks if check.problem is not None]
    assert [each for each in problems if problem in each], problems
    assert summary(evidence, checks)["ok"] is False
    assert summary(evidence, checks)["problems"] == problems


def test_only_a_few_of_many_wrong_rows_are_named() -> None:
    evidence = good()
    evidence.table = {key: {"id": key} for key in range(1, 3000)}
    problem = next(check.problem for check in verify(evidence) if "trusted" in check.name)
    assert problem is not None
    assert "2,996 more rows differ" in problem
    assert len(problem) < 250


def report(evidence: Evidence, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(console, evidence, verify(evidence))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_report_of_good_evidence() -> None:
    text = report(good())
    assert "All as promised: 4 changes" in text
    assert "✗" not in text
    assert all(command in text for command in ("cdc sandbox", "cdc tail wells", "README"))
    assert max(map(len, text.splitlines())) <= 80


def test_report_says_what_went_wrong() -> None:
    evidence = good()
    stale_read(evidence)
    text = " ".join(report(evidence).split())
    assert "✗ 1 of 10 reads gave a value older than a write that the reader had waited for." in text
    assert "All as promised" not in text
