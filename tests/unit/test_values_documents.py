"""Cells of json and jsonb: every number keeps its value, and what Python cannot hold is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.values import Types

JSON, JSONB = 114, 3802

TYPES = Types()


def decoded(oid: int, cell: bytes) -> object:
    return TYPES.decoder(oid)(cell)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (b'{"a": [1, 2.5, null, true], "b": "\\u00e9"}', {"a": [1, 2.5, None, True], "b": "é"}),
        (b"null", None),
        (b"12345678901234567890123", 12345678901234567890123),
        (b"[" + b"1" * 5000 + b", 7]", [Decimal("1" * 5000), 7]),
    ],
)
def test_documents(cell: bytes, value: object) -> None:
    assert decoded(JSONB, cell) == value
    assert decoded(JSON, cell) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (text, float(text))
            for text in ("0.1", "1.10", "-0.0", "1e5", "1E-7", "5e-324", "123456789012345.6", "1e22")
        ),
        *((text, float(text)) for text in ("0.30000000000000004", "0e999", "1.7976931348623157e308")),
        *(
            (text, Decimal(text))
            for text in ("1e400", "1e-400", "12345678901234567890.5", "0.1000000000000000055511151")
        ),
        *((text, Decimal(text)) for text in ("9007199254740993.0", "-1.00000000000000000001", "1e999999999999")),
        *((text, int(text)) for text in ("-0", "9007199254740993", "123456789012345678901234567890")),
    ],
)
def test_numbers_of_documents_keep_their_value(text: str, value: object) -> None:
    for cell in (text, f'{{"a": [{text}]}}'):
        result = decoded(JSON, cell.encode())
        result = result["a"][0] if isinstance(result, dict) else result
        assert (repr(result), type(result)) == (repr(value), type(value))


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_any_number_of_a_document_keeps_its_value(number: Decimal) -> None:
    result = decoded(JSON, str(number).encode())
    assert isinstance(result, int | float | Decimal)
    assert Decimal(repr(result) if isinstance(result, float) else result) == number


@pytest.mark.parametrize("cell", [b"NaN", b"[Infinity]", b"-Infinity", b"[1e99999999999999999999]", b"", b" "])
def test_what_is_no_document(cell: bytes) -> None:
    with pytest.raises(ValueError):
        decoded(JSON, cell)
    with pytest.raises(ValueError):
        decoded(JSON, b"[" + b"1" * 5000 + b"," + cell + b"]")


def test_depth_of_documents() -> None:
    assert decoded(JSONB, b"[" * 200 + b"]" * 200) is not None
    assert decoded(JSONB, b"[" + b",".join([b"[{}]"] * 300) + b"]") == [[{}]] * 300
    for depth in (201, 100_000):
        with pytest.raises(ValueError, match="levels deep"):
            decoded(JSONB, b"[" * depth + b"]" * depth)
