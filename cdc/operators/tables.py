"""All functions that are evaluated here, from the files of their families.

Pure: no I/O.
"""

from __future__ import annotations

from cdc.operators import (
    addresses,
    booleans,
    dates,
    enums,
    fields,
    floats,
    integers,
    internals,
    intervals,
    moments,
    numerics,
    strings,
    times,
    truncation,
    uuids,
)
from cdc.operators.builtins import Builtin, Table

__all__ = ["TABLE", "builtin"]

_FAMILIES: list[Table] = [
    addresses.TABLE,
    booleans.TABLE,
    dates.TABLE,
    enums.TABLE,
    fields.TABLE,
    floats.TABLE,
    integers.TABLE,
    internals.TABLE,
    intervals.TABLE,
    moments.TABLE,
    numerics.TABLE,
    strings.TABLE,
    times.TABLE,
    truncation.TABLE,
    uuids.TABLE,
]

TABLE: Table = {signature: found for family in _FAMILIES for signature, found in family.items()}
"""All functions by signature; no signature is in two families."""


def builtin(signature: str) -> Builtin | None:
    """The function of a signature; None when it is not evaluated here."""
    return TABLE.get(signature)
