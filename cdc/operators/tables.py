"""All functions that are evaluated here, from the files of their families.

Pure: no I/O.
"""

from __future__ import annotations

from cdc.operators import array_functions, booleans, dates, enums, floats, integers, likes, numerics, texts, uuids
from cdc.operators.builtins import Builtin, Table

__all__ = ["TABLE", "builtin"]

_FAMILIES: list[Table] = [
    array_functions.TABLE,
    likes.TABLE,
    texts.TABLE,
    booleans.TABLE,
    dates.TABLE,
    enums.TABLE,
    floats.TABLE,
    integers.TABLE,
    numerics.TABLE,
    uuids.TABLE,
]

TABLE: Table = {signature: found for family in _FAMILIES for signature, found in family.items()}
"""All functions by signature; no signature is in two families."""


def builtin(signature: str) -> Builtin | None:
    """The function of a signature; None when it is not evaluated here."""
    return TABLE.get(signature)
