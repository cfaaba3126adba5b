"""Filters on a scene's rows: what a trusted subscriber's filter shows, and what PostgreSQL selects by it."""

from __future__ import annotations

from random import Random

import psycopg

from cdc.catalog import collations
from cdc.errors import SubscriptionError
from cdc.filters import compile_filter
from cdc.operators import Moment
from cdc.predicate import ERROR, TRUE, Predicate, Verdict, verdict
from tests.oracle.account import AGREE, DEFECT, LEAK, REASONED, Account, Failure
from tests.oracle.filters import Filter, draw_filter
from tests.oracle.ground import Place

__all__ = ["play_filters"]

_FILTERS = 20


def play_filters(place: Place, seed: str, account: Account) -> None:
    """Judge some filters on every row of the scene."""
    draw = Random(f"{seed}/filters")
    known = collations(place.connection, place.relation.oid)
    for _ in range(_FILTERS):
        chosen, moment = draw_filter(draw, place.scene.columns), Moment()
        account.checks["filters"] += 1
        try:
            predicate = compile_filter(chosen.text, place.relation, place.types, known, moment)
        except SubscriptionError as error:
            account.checks["filters that are refused"] += 1
            account.details[f"filter: {str(error)[:110]}"] += 1
            continue
        except Exception as error:
            _fail(place, seed, account, chosen, f"a filter raises {type(error).__name__}: {error}", 1)
            continue
        _judge(place, seed, account, chosen, predicate)


def _judge(place: Place, seed: str, account: Account, chosen: Filter, predicate: Predicate) -> None:
    keys = list(range(1, len(place.cells) + 1))
    try:
        selected, _ = place.selected(keys, chosen.sql)
    except psycopg.Error as error:
        selected = set()
        if any(predicate.test(cells) == TRUE for cells in place.cells):
            _fail(place, seed, account, chosen, f"a filter that PostgreSQL refuses shows rows ({error.sqlstate})", 1)
        return
    for key in keys:
        outcome, visible = predicate.test(place.cells[key - 1]), key in selected
        shows = verdict(outcome) is Verdict.YES
        account.visible += visible
        if shows == visible:
            account.verdicts[AGREE] += 1
        elif shows:
            account.verdicts[LEAK] += 1
            _fail(place, seed, account, chosen, f"{LEAK} by a filter", key)
        elif outcome & (TRUE | ERROR):
            account.verdicts[REASONED] += 1
            account.reasons["undecided, by a filter"] += 1
        else:
            account.verdicts[DEFECT] += 1
            _fail(place, seed, account, chosen, f"{DEFECT} by a filter", key)


def _fail(place: Place, seed: str, account: Account, chosen: Filter, sort: str, key: int) -> None:
    row = dict(zip((column.name for column in place.scene.columns), place.scene.rows[key - 1], strict=True))
    kinds = {column.name: column.kind.name + column.kind.suffix for column in place.scene.columns}
    shown = {name: (kinds[name], row[name]) for name in sorted(chosen.columns)}
    told = f"-- PostgreSQL {place.version // 10000}, {place.scene.table}\n-- filter: {chosen.text}"
    text = f"{told}\n-- in SQL: {chosen.sql}\n-- row {key}: {shown}"
    if sum(failure.seed == seed for failure in account.failures) < 5:
        account.failures.append(Failure(sort, seed, text, account.total))
