"""All functions that are evaluated here, from the files of their families.

Pure: no I/O.
"""

from __future__ import annotations

from cdc.operators import (
    array_functions,
    booleans,
    dates,
    enums,
    floats,
    integers,
    likes,
    numerics,
    texts,
    uuids,
)
from cdc.operators.builtins import Builtin, Table

__all__ = ["TABLE", "TABLES", "builtin"]

TABLES: list[Table] = [
    array_functions.TABLE,
    booleans.TABLE,
    dates.TABLE,
    enums.TABLE,
    floats.TABLE,
    integers.TABLE,
    likes.TABLE,
    numerics.TABLE,
    texts.TABLE,
    uuids.TABLE,
]
"""The functions of each family by signature; no signature is in two."""

TABLE: Table = {signature: found for table in TABLES for signature, found in table.items()}
"""All functions by signature."""


def builtin(signature: str) -> Builtin | None:
    """The function of a signature; None when it is not evaluated here."""
    return TABLE.get(signature)
