"""Cells of text and bytea, and the equality of text, name, character(n) and enums.

Pure: no I/O, no clock. Every cell is UTF-8, since the replication connection's client_encoding is. Whether the
column's collation is deterministic (bytes decide) is for the caller to know: a cell does not say it.
The manual: "Data Types", Character Types and Binary Data Types.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable

from cdc.values.equality import Equality, encoded, quoted, wrong_type

__all__ = ["CHARACTER", "LABEL", "NAME", "TEXT", "bytes_of", "text_of"]

_NAME_BYTES = 63

text_of: Callable[[bytes], str] = bytes.decode
"""The str of a cell. Raises ValueError when it is not UTF-8."""


def bytes_of(cell: bytes) -> bytes:
    """The bytes of a bytea cell under bytea_output = hex. Raises ValueError for anything else."""
    if cell[:2] != b"\\x":
        raise ValueError(f"{quoted(cell)} is not bytea in hex form")
    return unhexlify(cell[2:])


def _python_text(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type("a str", value)
    return value


def _text_from_python(value: object) -> bytes:
    return encoded(_python_text(value))


def _name_from_text(text: str) -> bytes:
    # The server cuts a name at 63 bytes, between two characters.
    return encoded(text)[:_NAME_BYTES].decode(errors="ignore").encode()


def _name_from_python(value: object) -> bytes:
    return _name_from_text(_python_text(value))


def _unpadded(cell: bytes) -> bytes:
    return cell.rstrip(b" ")


def _character_from_text(text: str) -> bytes:
    return _unpadded(encoded(text))


def _character_from_python(value: object) -> bytes:
    return _character_from_text(_python_text(value))


TEXT = Equality(None, encoded, _text_from_python)
"""text and character varying: the bytes decide."""

NAME = Equality(None, _name_from_text, _name_from_python)
"""name: what is longer than 63 bytes is cut, as the server does."""

CHARACTER = Equality(_unpadded, _character_from_text, _character_from_python)
"""character(n): trailing blanks do not count."""

LABEL = Equality(None, encoded, _text_from_python)
"""Enums: the label decides. A label that the enum does not have equals nothing; it is not an error here."""
