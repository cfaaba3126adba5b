"""Bytes as text: encode and decode, hexadecimal and in base64.

Pure: no I/O. The manual: "Binary String Functions and Operators".
"""

from __future__ import annotations

import base64
import binascii
import re

from cdc.operators.builtins import Builtin, Table
from cdc.operators.context import Failed, Undecided

__all__ = ["TABLE"]

_LINE = 76  # characters of a line of base64
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def _encode(value: bytes, form: str) -> str:
    name = _form(form)
    if name == "hex":
        return value.hex()
    text = base64.b64encode(value).decode()
    return "\n".join(text[start : start + _LINE] for start in range(0, len(text), _LINE))


def _decode(text: str, form: str) -> bytes:
    """Only what is written without blanks is read; the rest is left to the server."""
    name = _form(form)
    if name == "hex":
        if not _HEX.fullmatch(text):
            raise Undecided("decode of a text that is not plain hex")
        return bytes.fromhex(text)
    if not _BASE64.fullmatch(text):
        raise Undecided("decode of a text that is not plain base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Undecided("decode of a text that is not plain base64") from None


def _form(form: str) -> str:
    name = form.lower() if form.isascii() else ""
    if name in ("hex", "base64"):
        return name
    if name in ("escape", "base64url", "base32hex"):
        raise Undecided(f"the encoding {name}")
    raise Failed("unrecognized encoding")


TABLE: Table = {
    "encode(bytea, text)": Builtin(_encode),
    "decode(text, text)": Builtin(_decode),
}
