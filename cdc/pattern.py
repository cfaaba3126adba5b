"""Names of tables as users write them, and patterns of names.

Touches nothing. A name is written as in SQL: what stands in double quotes is taken as it is.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from cdc.errors import SubscriptionError

__all__ = ["Pattern", "shell_pattern", "table_name"]

_NAME = re.compile(r'(?:(?P<schema>"(?:[^"]|"")+"|[^".]+)\.)?(?P<table>"(?:[^"]|"")+"|[^".]+)')
_WILD = frozenset("*?[")
_OURS = "cdc"


def table_name(name: str) -> tuple[str, str]:
    """Schema and table of `table` or `schema.table`; the schema defaults to public.

    Names are case-sensitive. One with a dot or a quote in it is written as in SQL, in double quotes.
    """
    schema, table = _parts(name)
    return _unquoted(schema or "public"), _unquoted(table)


def shell_pattern(text: str) -> re.Pattern[str]:
    """What matches as a shell does: `*` any characters, `?` one, `[ab]` one of these; case-sensitive."""
    return re.compile(fnmatch.translate(text))


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which tables somebody means: one by its name, or all whose name has a shape.

    `public.*`, `sales_*` (of schema public), `*.audit`; `*` alone means every table of every schema. What stands in
    double quotes is a name, whatever is in it. The schema `cdc` is never meant by a shape.

    Attributes:
        text: as it was written.
        named: schema and table when it names one table, else None.
    """

    text: str
    named: tuple[str, str] | None
    _schema: re.Pattern[str]
    _table: re.Pattern[str]

    @classmethod
    def of(cls, text: str) -> Pattern:
        """The pattern that is written as `text`. Raises SubscriptionError for what is none."""
        schema, table = _parts(text)
        named = None if _is_wild(schema or "") or _is_wild(table) else table_name(text)
        return cls(text, named, _matcher(schema or ("*" if table == "*" else "public")), _matcher(table))

    @property
    def is_everything(self) -> bool:
        """Whether it means whatever there is."""
        return self.text == "*"

    def matches(self, schema: str, table: str) -> bool:
        """Whether it means this table."""
        if self.named is not None:
            return self.named == (schema, table)
        return schema != _OURS and bool(self._schema.match(schema) and self._table.match(table))


def _parts(name: str) -> tuple[str | None, str]:
    """Schema and table as they are written, in their quotes."""
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise SubscriptionError(f'{name!r} is not the name of a table; write wells, public.wells or "My.Table"')
    return found["schema"], found["table"]


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _is_wild(part: str) -> bool:
    return not part.startswith('"') and not _WILD.isdisjoint(part)


def _matcher(part: str) -> re.Pattern[str]:
    return shell_pattern(part) if _is_wild(part) else re.compile(re.escape(_unquoted(part)) + r"\Z")
