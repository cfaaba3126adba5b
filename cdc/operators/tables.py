"""All functions that are evaluated here, from the files of their families.

Pure: no I/O.
"""

from __future__ import annotations

from cdc.operators import array_functions, binaries, likes, regexes, strings, texts
from cdc.operators.builtins import Builtin, Table

__all__ = ["TABLES", "builtin"]

TABLES: list[Table] = [
    array_functions.TABLE,
    binaries.TABLE,
    likes.TABLE,
    regexes.TABLE,
    strings.TABLE,
    texts.TABLE,
]
"""The functions of each family by signature; no signature is in two."""

_ALL = {signature: found for table in TABLES for signature, found in table.items()}


def builtin(signature: str) -> Builtin | None:
    """The function of a signature; None when it is not evaluated here."""
    return _ALL.get(signature)
