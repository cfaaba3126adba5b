"""Cells of type uuid, and their equality.

Pure: no I/O, no clock. The manual: "Data Types", UUID Type.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from uuid import UUID, SafeUUID

from cdc.values.equality import Equality, quoted, wrong_type

__all__ = ["UUIDS", "uuid_of", "uuid_of_binary"]

# As the server reads it: upper case, braces, and a hyphen after any group of four digits or none.
# uuid.UUID would take more, such as `urn:uuid:` and hyphens anywhere.
_FORM = re.compile(r"(\{)?(?:[0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}(?(1)\})")

_UNKNOWN = SafeUUID.unknown
_new, _set = UUID.__new__, object.__setattr__


def uuid_of(cell: bytes) -> UUID:
    """The UUID of a cell. Raises ValueError when it is none."""
    return uuid_of_binary(unhexlify(cell.replace(b"-", b"")))


def uuid_of_binary(cell: bytes) -> UUID:
    """The UUID of a cell in binary form, 16 bytes. Raises ValueError."""
    if len(cell) != 16:
        raise ValueError(f"{quoted(cell)} is not a uuid: it does not have 16 bytes")
    value = _new(UUID)  # UUID's own __init__, which reads many forms, takes three times as long
    _set(value, "int", int.from_bytes(cell, "big"))
    _set(value, "is_safe", _UNKNOWN)
    return value


def _from_text(text: str) -> bytes:
    if not _FORM.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a uuid")
    digits = text.strip("{}").replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])).encode()


def _from_python(value: object) -> bytes:
    if isinstance(value, UUID):
        return str(value).encode()
    if isinstance(value, str):
        return _from_text(value)
    raise wrong_type("a UUID or its text", value)


UUIDS = Equality(None, _from_text, _from_python)
