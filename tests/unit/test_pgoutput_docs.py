"""docs/pgoutput.md: the table of messages says what was recorded, and names tests that exist."""

from __future__ import annotations

import re
from collections import defaultdict

from tests.docs import HOME
from tests.wire.recording import recordings

_ROW = re.compile(r"^\| ([A-Z][A-Za-z ]+) \| `(\w)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, ...]]:
    return _ROW.findall((HOME / "docs" / "pgoutput.md").read_text())


def test_the_table_has_every_message() -> None:
    stated = re.findall(r'"""([A-Z][A-Za-z ]+): \'(\w)\'', (HOME / "cdc" / "pgoutput" / "messages.py").read_text())
    assert [row[:2] for row in rows()] == stated and len(stated) == 19


def test_the_table_names_the_versions_that_were_recorded() -> None:
    versions: dict[tuple[str, str], set[int]] = defaultdict(set)
    for recording in recordings():
        protocol = re.sub(r"^proto(\d).*", r"\1", recording.variant)
        for payload in recording.payloads():
            versions[chr(payload[0]), protocol].add(recording.version)
    for name, byte, *cells, _ in rows():
        for protocol, cell in zip("1234", cells, strict=True):
            found = sorted(versions[byte, protocol])
            assert cell == (f"{found[0]}–{found[-1]}" if found else "–"), (name, protocol)  # noqa: RUF001
            assert found == list(range(found[0], found[-1] + 1) if found else [])


def test_the_page_names_tests_that_exist() -> None:
    tests = "\n".join(path.read_text() for path in (HOME / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", (HOME / "docs" / "pgoutput.md").read_text()))
    assert len(named) > 12
    assert not {name for name in named if f"def {name}(" not in tests}
    assert all("`test_" in row[-1] for row in rows())
