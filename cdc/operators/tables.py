"""All functions that are evaluated here, from the files of their families.

Pure: no I/O.
"""

from __future__ import annotations

from cdc.operators import (
    addresses,
    array_functions,
    binaries,
    bits,
    booleans,
    dates,
    enums,
    fields,
    floats,
    integers,
    internals,
    intervals,
    json_functions,
    json_texts,
    likes,
    moments,
    numerics,
    periods,
    regexes,
    similar,
    text_functions,
    texts,
    times,
    truncation,
    uuids,
)
from cdc.operators.builtins import Builtin, Table

__all__ = ["TABLE", "TABLES", "builtin"]

TABLES: list[Table] = [
    addresses.TABLE,
    array_functions.TABLE,
    binaries.TABLE,
    bits.TABLE,
    booleans.TABLE,
    dates.TABLE,
    enums.TABLE,
    fields.TABLE,
    floats.TABLE,
    integers.TABLE,
    internals.TABLE,
    intervals.TABLE,
    json_functions.TABLE,
    json_texts.TABLE,
    likes.TABLE,
    moments.TABLE,
    numerics.TABLE,
    periods.TABLE,
    regexes.TABLE,
    similar.TABLE,
    text_functions.TABLE,
    texts.TABLE,
    times.TABLE,
    truncation.TABLE,
    uuids.TABLE,
]
"""The functions of each family by signature; no signature is in two."""

TABLE: Table = {signature: found for table in TABLES for signature, found in table.items()}
"""All functions by signature."""


def builtin(signature: str) -> Builtin | None:
    """The function of a signature; None when it is not evaluated here."""
    return TABLE.get(signature)
