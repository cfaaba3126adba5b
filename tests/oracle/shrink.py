"""Makes a failure small: leaves out policies and parts of conditions while it still fails; writes it down as SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg

from tests.oracle.ground import Place
from tests.oracle.judging import Judged, judge
from tests.oracle.scene import Policy

__all__ = ["reproduction", "shrink"]

_TRIALS = 150


def shrink(place: Place, policies: list[Policy], fails: Callable[[], bool]) -> list[Policy]:
    """Fewer and shorter policies with which it still fails. Leaves those in place."""
    best, left = policies, _TRIALS
    again = True
    while again and left > 0:
        again = False
        for candidate in _smaller(best):
            left -= 1
            if left <= 0:
                break
            if len(place.policies(candidate)) == len(candidate) and fails():
                best, again = candidate, True
                break
    place.policies(best)
    return best


def _smaller(policies: list[Policy]) -> Iterator[list[Policy]]:
    for at in range(len(policies)):
        if len(policies) > 1:
            yield policies[:at] + policies[at + 1 :]
    for at, policy in enumerate(policies):
        for part in policy.condition.parts:
            yield [*policies[:at], replace(policy, condition=part), *policies[at + 1 :]]
        if policy.roles or policy.command or policy.check:
            yield [*policies[:at], replace(policy, roles=(), command="", check=""), *policies[at + 1 :]]


def reproduction(place: Place, policies: list[Policy], number: int, key: int) -> str:
    """The failure as SQL, with what both sides say of the row."""
    scene, subject = place.scene, place.scene.subjects[number]
    place.policies(policies)
    each = judge(place, [subject])[0]
    used = " ".join(policy.condition.sql for policy in policies)
    row = scene.rows[key - 1]
    columns = [(column, cell) for column, cell in zip(scene.columns, row, strict=True) if column.name in used]
    listed = ", ".join(f"{column.name} {column.kind.name}{column.kind.suffix}" for column, _ in columns)
    cells = ", ".join(
        repr(cell) if cell is not None and len(cell) < 200 else "NULL" if cell is None else f"<{len(cell)} characters>"
        for _, cell in columns
    )
    lines = [
        f"-- PostgreSQL {place.version // 10000}, table {scene.table} (id int PRIMARY KEY, {listed})",
        f"-- row {key}: {cells}",
    ]
    lines += [f"{option};" for option in scene.options]
    lines += [f"{right};" for right in scene.rights if _concerns(right, subject.role)]
    lines += [f"{policy.sql(scene.table)};" for policy in policies]
    lines.append(f"-- as role {subject.role} with {dict(subject.settings)}")
    lines.append(f"-- PostgreSQL: {_said(place, number, key)}")
    if isinstance(each, Judged):
        opinion = each.opinion(place.cells[key - 1])
        lines.append(
            f"-- cdc: {'shows it' if opinion.shows else 'hides it'}; {opinion.reason}; denied: {each.decision.denied}"
        )
        lines.append(
            f"--      unsupported: {', '.join(map(str, each.decision.unsupported)) or 'none'}; "
            f"hidden: {', '.join(sorted(each.decision.hidden)) or 'none'}"
        )
    return "\n".join(lines)


def _concerns(right: str, role: str) -> bool:
    return role in right or " PUBLIC" in right or right.startswith("GRANT o_")


def _said(place: Place, number: int, key: int) -> str:
    try:
        query = f"SELECT id FROM {place.scene.table} WHERE id = {key}"
        found = place.reader(number).execute(query).fetchall()  # type: ignore[arg-type]
    except psycopg.Error as error:
        return f"raises {error.sqlstate}: {str(error).splitlines()[0]}"
    return "shows it" if found else "does not show it"
