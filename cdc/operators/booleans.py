"""Booleans: their texts, comparisons and casts.

Pure: no I/O. The manual: "Data Types", Boolean Type.
"""

from __future__ import annotations

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec, failing
from cdc.operators.context import Context
from cdc.operators.orders import comparisons
from cdc.values.booleans import BOOLEAN, boolean_of

__all__ = ["CODECS", "TABLE"]


def _input(context: Context, text: str) -> bool:
    try:
        return BOOLEAN.from_text(text) == b"t"
    except ValueError:
        raise failing("boolean") from None


CODECS = {16: Codec(boolean_of, _input, lambda context, value: "t" if value else "f")}

TABLE: Table = {
    **comparisons("bool{}", "boolean", equality=True),
    "bool(integer)": Builtin(bool),
    "int4(boolean)": Builtin(int),
    "text(boolean)": Builtin(lambda value: "true" if value else "false"),
}
