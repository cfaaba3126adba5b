"""How the server is asked to stream, and what is refused before it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cdc
from cdc.options import Options


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"streaming": "off"}, "proto_version '1', publication_names 'p'"),
        ({}, "proto_version '2', publication_names 'p', streaming 'on'"),
        ({"two_phase": True}, "proto_version '3', publication_names 'p', streaming 'on', two_phase 'on'"),
        ({"streaming": "off", "two_phase": True}, "proto_version '3', publication_names 'p', two_phase 'on'"),
        ({"streaming": "parallel"}, "proto_version '4', publication_names 'p', streaming 'parallel'"),
        ({"streaming": "off", "binary": True}, "proto_version '1', publication_names 'p', binary 'true'"),
    ],
)
def test_the_lowest_protocol_that_has_what_is_asked_for(options: dict[str, Any], asked: str) -> None:
    assert Options(**options).parameters("'p'") == asked
    assert Options(**options).parameters("'p'", messages=True) == f"{asked}, messages 'true'"


def test_transactions_may_be_wanted_whole_for_once() -> None:
    asked = Options("parallel", two_phase=True).parameters("'p'", messages=True, whole=True)
    assert asked == "proto_version '3', publication_names 'p', two_phase 'on', messages 'true'"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"streaming": "yes"}, "streaming is 'on', 'off' or 'parallel', not 'yes'"),
        ({"streaming": True}, "streaming is 'on', 'off' or 'parallel', not True"),
        ({"spool_memory": -1}, "spool_memory is a number of bytes, not -1"),
        ({"spool_memory": "16MB"}, "spool_memory is a number of bytes, not '16MB'"),
        ({"spool_memory": True}, "spool_memory is a number of bytes, not True"),
        ({"spool_folder": "/nowhere/at/all"}, "spool_folder: /nowhere/at/all is not a folder"),
        ({"two_phase": "on"}, "two_phase is True or False, not 'on'"),
        ({"binary": 1}, "binary is True or False, not 1"),
    ],
)
def test_mistakes_are_named_when_the_consumer_is_made(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=problem):
        cdc.Consumer("postgresql://db/app", slot="ingest", **options)


@pytest.mark.parametrize(
    ("options", "version", "problem"),
    [
        (Options("parallel"), 150000, "streaming='parallel' needs PostgreSQL 16, and this is 15: use streaming='on'"),
        (Options(two_phase=True), 140023, "two_phase=True needs PostgreSQL 15, and this is 14: leave it out"),
    ],
)
def test_what_an_old_server_does_not_have(options: Options, version: int, problem: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=problem):
        options.check(version)
    options.check(160000)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(cdc.ConfigurationError, match="is not a folder"):
        cdc.Consumer("postgresql://db/app", slot="ingest", spool_folder=tmp_path / "file")


def test_types_are_registered_with_a_name_and_a_function() -> None:
    consumer = cdc.Consumer("postgresql://db/app", slot="ingest")
    for arguments in (("hstore", None), ("", str), (17, str)):
        with pytest.raises(cdc.ConfigurationError, match="register_type takes a type's name and a function"):
            consumer.register_type(*arguments)  # type: ignore[arg-type]
