"""uuid: texts and comparisons.

Pure: no I/O. Canonical texts are ordered as the bytes are. The manual: "Data Types", UUID Type.
"""

from __future__ import annotations

from cdc.operators.builtins import Table
from cdc.operators.codec import Codec, failing
from cdc.operators.context import Context
from cdc.operators.orders import comparisons
from cdc.values.uuids import UUIDS

__all__ = ["CODECS", "TABLE"]


def _input(context: Context, text: str) -> str:
    try:
        canonical = UUIDS.from_text(text)
    except ValueError:
        raise failing("uuid") from None
    return str(canonical, "ascii")  # type: ignore[call-overload, no-any-return]  # bytes


CODECS = {2950: Codec(bytes.decode, _input, lambda context, value: value)}

TABLE: Table = comparisons("uuid_{}", "uuid", equality=True)
