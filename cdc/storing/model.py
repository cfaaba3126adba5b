"""A store's model: a dataclass of the user's own that rows become.

Touches nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from typing import Any

from cdc.errors import ConfigurationError, SubscriptionError
from cdc.row import Row

__all__ = ["Model"]


class Model:
    """Makes instances of a dataclass from rows: a field gets the column of its name.

    Raises ConfigurationError for what is no dataclass.
    """

    def __init__(self, made: Any) -> None:
        if not (isinstance(made, type) and is_dataclass(made)):
            raise ConfigurationError(f"the model of a store is a dataclass, not {made!r}")
        self._made: Any = made
        self._fields = tuple(field.name for field in fields(made) if field.init)

    def check(self, table: str, columns: Collection[str]) -> None:
        """Raise SubscriptionError for a field that no column is for."""
        for name in self._fields:
            if name not in columns:
                raise SubscriptionError(
                    f"{self._made.__qualname__}.{name} has no column in {table}, which shows {', '.join(columns)}: "
                    "name the field like a column, or give it init=False"
                )

    def of(self, row: Row) -> Any:
        """The instance of a row."""
        return self._made(**{name: row[name] for name in self._fields})
