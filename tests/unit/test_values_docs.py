"""docs/types.md: every row names a test that exists, and every built-in type has a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cdc.values.builtin import SCALARS
from tests.integration.test_values_stream import NAMES

HOME = Path(__file__).resolve().parents[2]
PAGE = (HOME / "docs" / "types.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.endswith("| test |")]


def named_test(row: str) -> tuple[str, str]:
    """The test that a row names, and the type in its brackets."""
    named = re.search(r"`(test_\w+)(?:\[(.+)\])?` \|$", row)
    assert named, row
    return named[1], named[2] or ""


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_a_test(row: str) -> None:
    function, parameter = named_test(row)
    sources = [path.read_text() for path in (HOME / "tests").rglob("test_values*.py")]
    assert any(f"def {function}(" in source for source in sources)
    assert not parameter or parameter in NAMES


def test_every_builtin_type_has_a_row() -> None:
    first = " ".join(row.split(" | ")[0] for row in ROWS) + " ".join(row.split("|")[1] for row in ROWS)
    aliases = {"character": "char(n)", "character varying": "varchar(n)", "bit varying": "varbit", "bit": "bit(n)"}
    for scalar in SCALARS.values():
        is_covered = scalar.name.startswith("reg") or "range" in scalar.name or scalar.name == "gtsvector"
        names = {scalar.name, scalar.typname, aliases.get(scalar.name, scalar.name)}
        assert is_covered or any(f"`{name}`" in first for name in names), scalar.name
