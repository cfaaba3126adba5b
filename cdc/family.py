"""A family: one subscription to several tables, those named and those whose name matches a pattern.

Pure: no I/O. To the user it is one subscription with one handler; inside it has a member for each table, which is what
the catalog is asked about and what a view is made for. What is delivered is counted and linked in the family.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cdc.pattern import Pattern
from cdc.subscription import Handler, Subscription

__all__ = ["Family", "Member"]


class Family(Subscription):
    """One subscriber's interest in several tables, also in those that join the publication later.

    Has the attributes of every subscription; `previous` links the events of all its tables in commit order, and
    `denied` says why nothing is visible of which tables.

    Attributes:
        patterns: the tables as they were named.
        members: a subscription for each table that it has, by schema and name; their `denied` is each table's own.
    """

    __slots__ = ("members", "patterns")

    def __init__(self, patterns: Sequence[Pattern], handler: Handler, **options: Any) -> None:
        self.patterns = tuple(patterns)
        self.members: dict[tuple[str, str], Member] = {}
        name = options.pop("name", None) or f"{self.label} {getattr(handler, '__qualname__', type(handler).__name__)}"
        super().__init__("", "", handler, name=name, **options)

    @property
    def label(self) -> str:
        """The tables as they were named."""
        return ", ".join(pattern.text for pattern in self.patterns)

    @property
    def tables(self) -> list[str]:
        """The tables that it has at the moment."""
        return [f"{schema}.{table}" for schema, table in sorted(self.members)]

    @property
    def parts(self) -> Sequence[Subscription]:
        """Its members."""
        return list(self.members.values())

    def wants(self, schema: str, table: str) -> bool:
        """Whether the table is meant."""
        return any(pattern.matches(schema, table) for pattern in self.patterns)

    def member(self, schema: str, table: str) -> Member:
        """The member for a table, made when there is none yet."""
        found = self.members.get((schema, table))
        if found is None:
            found = self.members[schema, table] = Member(self, schema, table)
        return found

    def drop(self, tables: Iterable[tuple[str, str]]) -> None:
        """Forget these members."""
        for table in tables:
            self.members.pop(table, None)
        self.judge()

    def judge(self) -> None:
        """Say of which tables nothing is visible."""
        denied = {str(name): each.denied for name, each in list(self.members.items()) if each.denied is not None}
        self.denied = "; ".join(denied[name] for name in sorted(denied)) or None

    def __repr__(self) -> str:
        return f"<Family {self.label} {self._as}, {len(self.members)} tables>"


class Member(Subscription):
    """A family's interest in one table."""

    __slots__ = ("_denied", "_family", "_left", "_named")

    def __init__(self, family: Family, schema: str, table: str) -> None:
        self._family = family
        self._left = False
        self._named = any(pattern.named == (schema, table) for pattern in family.patterns)
        super().__init__(
            schema,
            table,
            family.handler,
            family.operations if family.asked else None,
            family.filter,
            family.subject,
            family.accept_undecided,
            name=family.name,
        )

    @property
    def reader(self) -> Subscription:
        """The family: its handler is called."""
        return self._family

    @property
    def named(self) -> bool:
        """Whether the family was asked for the table by its name, not by a pattern."""
        return self._named

    @property
    def has_left(self) -> bool:
        """Whether the table was not published any more when the catalog was asked last."""
        return self._left

    def leave(self, left: bool) -> bool:
        """Note whether the table is published no longer; what it sent until then is still delivered.

        Returns whether that is news.
        """
        news, self._left = left != self._left, left
        if left:
            self._sent = None
        return news

    @property
    def denied(self) -> str | None:
        """Why nothing is visible of this table at the moment, or None."""
        return self._denied

    @denied.setter
    def denied(self, reason: str | None) -> None:
        self._denied = reason
        self._family.judge()
