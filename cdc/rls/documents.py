"""JSON of the session: `->` and `->>` with a field's name, where `cdc.operators` has no function for them.

Pure: no I/O. See `claims` for what is read of JSON, and what is not.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc.operators import Builtin, Context, Failed, Undecided
from cdc.rls.claims import Document, parse

__all__ = ["DOCUMENTS", "INPUTS"]


def _input(binary: bool) -> Callable[[Context, str], object]:
    def read(context: Context, text: str) -> Document:
        try:
            return parse(text, binary=binary)
        except ValueError as error:
            raise Failed(f"the text is not JSON: {error}") from None

    return read


def _field(document: object, name: str) -> object:
    assert isinstance(document, Document)
    return document.field(name)


def _text(document: object, name: str) -> object:
    assert isinstance(document, Document)
    found = document.field(name)
    try:
        return None if found is None else found.text()
    except ValueError as error:
        raise Undecided(f"it has no text that can be compared: {error}") from None


INPUTS = {114: _input(False), 3802: _input(True)}

DOCUMENTS = {
    f"{kind}_object_field{suffix}(from_json {kind}, field_name text)": Builtin(function)
    for kind in ("json", "jsonb")
    for suffix, function in (("", _field), ("_text", _text))
}
