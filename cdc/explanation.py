"""An explanation: what row-level security of a table means to a subject, and to one row, in words.

Pure: no I/O. `explaining` asks the database and makes them; here is what they say and how they are printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ExplainedPolicy", "Explanation", "ServerAnswer"]


@dataclass(frozen=True, slots=True)
class ExplainedPolicy:
    """A policy for reading.

    Attributes:
        name: its name.
        permissive: True for AS PERMISSIVE, False for AS RESTRICTIVE.
        command: `"SELECT"` or `"ALL"`.
        roles: names of the roles it is TO, `"public"` among them.
        expression: its USING expression as PostgreSQL prints it; None when it has WITH CHECK only.
        unsupported: the construct that cdc cannot decide, in words; None when it is supported.
        applies: whether it holds for the subject's role; None without a subject.
        index: how subscribers are found for a row, in words; None without a subject, or when it is not known.
        problem: why it cannot be evaluated for this subject; None when it can.
        outcome: for the row: `"true"`, `"false"`, `"null"`, `"error"` or `"not decidable"`; None without a row.
        reason: why the outcome is an error or not decidable, if that is known.
    """

    name: str
    permissive: bool
    command: str
    roles: tuple[str, ...]
    expression: str | None
    unsupported: str | None
    applies: bool | None = None
    index: str | None = None
    problem: str | None = None
    outcome: str | None = None
    reason: str | None = None

    def lines(self, role: str | None) -> Iterator[str]:
        """As text for people."""
        kind = "permissive" if self.permissive else "restrictive"
        yield f"  {self.name}: {kind}, for {self.command}, to {', '.join(self.roles)}"
        if self.expression is not None:
            yield f"      using {' '.join(self.expression.split())}"
        yield f"      {self._verdict(role)}"
        if self.outcome is not None:
            yield f"      this row: {self.outcome}{'' if self.reason is None else f': {self.reason}'}"

    def _verdict(self, role: str | None) -> str:
        if self.applies is False:
            return f"does not apply to {role}"
        if self.expression is None:
            return "supported: WITH CHECK only, grants nothing to readers"
        if self.unsupported is not None:
            return f"not supported: {self.unsupported}"
        if self.problem is not None:
            return f"supported, but not for this subject: {self.problem}"
        return "supported" if self.index is None else f"supported: {self.index}"


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What PostgreSQL itself says of the row, asked as the subject's role.

    Attributes:
        visible: whether it shows the row; None when it was not asked.
        reason: why it was not asked, or the error that it raised; None otherwise.
        agrees: whether that is what cdc decides; None when one of them does not say.
    """

    visible: bool | None
    reason: str | None = None
    agrees: bool | None = None

    def line(self, role: str) -> str:
        """As text for people."""
        if self.visible is None:
            return f"  PostgreSQL was not asked: {self.reason}"
        said = "visible" if self.visible else "not visible"
        raised = "" if self.reason is None else f" ({self.reason})"
        judged = {True: "the same", False: "cdc says otherwise", None: "cdc cannot decide it"}[self.agrees]
        return f"  PostgreSQL as {role}: {said}{raised}: {judged}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What row-level security of a table means to a subject, and to one row. Printing it shows all of it.

    Attributes:
        schema, table: the table.
        row_security: whether row-level security is on; without it, policies do nothing.
        forced: whether it binds the table's owner, too.
        policies: the policies for reading, in the order of their names.
        warnings: what is probably not meant, one sentence each.
        role: the subject's role; None without a subject.
        exempt: why row-level security does not bind the role; None when it does.
        hidden: names of the columns that the role may not read.
        denied: why the subject sees nothing at all; None when it may see something.
        row: what the row is called, such as `33`; None without a row.
        visible: whether the subject sees the row; None without a row, and when it cannot be decided.
        because: what decides that, in words; None without a row.
        server: what PostgreSQL says of the row; None without a row.
    """

    schema: str
    table: str
    row_security: bool
    forced: bool
    policies: tuple[ExplainedPolicy, ...]
    warnings: tuple[str, ...] = ()
    role: str | None = None
    exempt: str | None = None
    hidden: tuple[str, ...] = ()
    denied: str | None = None
    row: str | None = None
    visible: bool | None = None
    because: str | None = None
    server: ServerAnswer | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict that JSON can hold: the attributes by name, policies and the server's answer as dicts."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        state = "on, and binds the owner too" if self.forced else "on"
        if not self.row_security:
            state = "off, so that policies do nothing and grants alone decide"
        who = "" if self.role is None else f" as {self.role}"
        yield f"{self.schema}.{self.table}{who}: row-level security is {state}"
        if self.row_security and not self.policies:
            yield f"  no policy: {'nobody' if self.forced else 'nobody but the owner'} sees a row"
        for policy in self.policies:
            yield from policy.lines(self.role)
        for warning in self.warnings:
            yield f"  warning: {warning}"
        if self.role is not None:
            yield from self._for_subject(self.role)

    def _for_subject(self, role: str) -> Iterator[str]:
        if self.exempt is not None:
            yield f"  {role} sees every row: {self.exempt}"
        if self.hidden:
            yield f"  hidden columns: {', '.join(self.hidden)}"
        if self.denied is not None:
            yield f"  nothing is visible: {self.denied}"
        refused = [policy.name for policy in self.policies if policy.applies and policy.unsupported is not None]
        if refused and self.exempt is None:
            yield f"  subscribe refuses this table to {role}, because of what is not supported in {', '.join(refused)}"
        if self.row is not None:
            word = {True: "visible", False: "not visible", None: "not decidable, so not shown"}[self.visible]
            yield f"  row {self.row}: {word}: {self.because}"
        if self.server is not None:
            yield self.server.line(role)
