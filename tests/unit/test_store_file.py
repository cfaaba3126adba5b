"""The file of a store: what was saved is what is loaded, or nothing is."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc import CdcError, ConfigurationError, Lsn, Position
from cdc.pgoutput import RelationColumn, RelationMessage
from cdc.recording import Told
from cdc.store_file import StoreFile
from cdc.store_mark import StoreMark
from cdc.values import TypeInfo

ID = RelationColumn("id", 23, -1, True)
TOLD = Told(
    RelationMessage(16400, "public", "wells", "d", (ID, RelationColumn("mood", 16500, -1, False))),
    ("id",),
    16400,
    (TypeInfo(16500, "public", "mood", "e", labels=("good", "bad"), label_oids=(1, 2)),),
    (),
)
MARK = StoreMark(
    TOLD, "wanted", None, "source", ("7123", "app"), (("wells", 16410),), False, "k3v9", None, "ground", done=True
)


def at(number: int, mark: StoreMark = MARK) -> StoreMark:
    return replace(mark, position=Position("k3v9", Lsn(number), number))


def saved(path: Path, rows: dict[bytes, bytes | None], mark: StoreMark = MARK) -> None:
    file = StoreFile(path)
    file.save(rows, mark)
    file.close()


def loaded(path: Path) -> tuple[StoreMark, dict[bytes, bytes]] | None:
    file = StoreFile(path)
    try:
        return by_key(file)
    finally:
        file.close()


def by_key(file: StoreFile) -> tuple[StoreMark, dict[bytes, bytes]] | None:
    found = file.load()
    if found is None or file._connection is None:
        return None
    rows = file._connection.execute("SELECT key, line FROM rows").fetchall()
    assert [line for _, line in rows] == found[1]
    return found[0], dict(rows)


def test_a_new_file_is_empty_and_its_owners_own(tmp_path: Path) -> None:
    path = tmp_path / "wells"
    assert loaded(path) is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["wells"]
    assert loaded(path) is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    saves=st.lists(
        st.tuples(st.dictionaries(st.binary(max_size=3), st.none() | st.binary(max_size=20)), st.booleans()), max_size=8
    ),
    reopen=st.booleans(),
)
def test_what_was_saved_is_loaded(
    tmp_path: Path, saves: list[tuple[dict[bytes, bytes | None], bool]], reopen: bool
) -> None:
    path = tmp_path / "wells"
    path.unlink(missing_ok=True)
    file, rows = StoreFile(path), dict[bytes, bytes]()
    for number, (changes, anew) in enumerate(saves, 1):
        rows = ({} if anew else rows) | {key: line for key, line in changes.items() if line is not None}
        rows = {key: line for key, line in rows.items() if key not in changes or changes[key] is not None}
        file.save(changes, at(number), anew)
        if reopen:
            file.close()
            file = StoreFile(path)
        assert by_key(file) == (at(number), rows)
    file.close()


def test_the_mark_comes_back_as_it_was(tmp_path: Path) -> None:
    whole = replace(at(3), sight="seen", messages=True, done=False, due=True, after=("1", "a\tb"))
    saved(tmp_path / "wells", {}, whole)
    assert loaded(tmp_path / "wells") == (whole, {})


def test_rows_come_in_the_order_in_which_they_were_first_saved(tmp_path: Path) -> None:
    rows: dict[bytes, bytes | None] = {str(number).encode(): b"x" for number in range(200)}
    saved(tmp_path / "wells", rows)
    found = loaded(tmp_path / "wells")
    assert found is not None and list(found[1]) == list(rows)


def test_a_save_costs_what_has_changed(tmp_path: Path) -> None:
    path, log = tmp_path / "wells", tmp_path / "wells-wal"
    rows: dict[bytes, bytes | None] = {str(number).encode(): b"x" * 100 for number in range(20_000)}
    file = StoreFile(path)
    file.save(rows, MARK)
    file.close()
    assert path.stat().st_size > 2_000_000
    file = StoreFile(path)
    assert not log.exists() or log.stat().st_size == 0
    file.save({b"77": b"y", b"15000": None}, at(1))
    assert log.stat().st_size < 60_000
    file.close()


def test_the_log_goes_when_the_file_is_closed(tmp_path: Path) -> None:
    file = StoreFile(tmp_path / "wells")
    file.save({b"1": b"x"}, MARK)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["wells", "wells-wal"]
    file.close()
    file.close()
    assert [each.name for each in tmp_path.iterdir()] == ["wells"]
    with pytest.raises(CdcError, match="is closed"):
        file.save({}, MARK)


# Others.

HOLD = textwrap.dedent(
    """
    import sys
    from cdc.store_file import StoreFile
    file = StoreFile(sys.argv[1])
    print("open", flush=True)
    sys.stdin.read()
    """
)


def test_another_store_has_to_wait(tmp_path: Path) -> None:
    path = tmp_path / "wells"
    file = StoreFile(path)
    with pytest.raises(ConfigurationError, match="in use by another store"):
        StoreFile(path)
    file.save({b"1": b"x"}, MARK)
    file.close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "open\n"
        with pytest.raises(ConfigurationError, match="in use by another store"):
            StoreFile(path)
        child.kill()
    assert loaded(path) == (MARK, {b"1": b"x"})


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("dear diary " * 1000)
    with pytest.raises(ConfigurationError, match="is not the file of a store"):
        StoreFile(path)
    assert path.read_text() == "dear diary " * 1000
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mark (id int)")
    connection.close()
    before = other.read_bytes()
    with pytest.raises(ConfigurationError, match="is not the file of a store"):
        StoreFile(other)
    assert other.read_bytes() == before


def test_a_file_of_a_later_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "wells"
    saved(path, {b"1": b"x"})
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="format 2, and this release of cdc has format 1"):
        StoreFile(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none/wells", "its folder does not exist"),
        ("file/wells", "Not a directory"),
        ("folder", "not a regular file"),
        ("/proc/wells", "folder does not exist|denied"),
    ],
)
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=f"cannot be used: .*({reason})"):
        StoreFile(tmp_path / path)


@pytest.mark.parametrize("path", ["", None, 3, b"wells", "a\0b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="is a str or a Path"):
        StoreFile(path)


def test_a_path_is_no_name_of_sqlites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x?mode=memory"):
        saved(Path(name), {b"1": b"x"})
        assert (tmp_path / name).exists() and loaded(Path(name)) is not None


READ_ONLY = textwrap.dedent(
    """
    import os, sys
    from cdc import ConfigurationError
    from cdc.store_file import StoreFile
    if os.getuid() == 0:
        os.setgid(65534), os.setuid(65534)
    try:
        StoreFile(sys.argv[1])
    except ConfigurationError as error:
        print(error)
    """
)


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wells"
    saved(path, {b"1": b"x"})
    path.chmod(0o444)
    tmp_path.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    command = [sys.executable, "-c", READ_ONLY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "cannot be used: it may not be read and written" in done.stdout, done


def test_a_full_disk_keeps_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "wells"
    file = StoreFile(path)
    file.save({b"1": b"x"}, at(1))
    connection = file._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 10")  # As SQLite finds a disk that is full.
    many: dict[bytes, bytes | None] = {str(number).encode(): b"y" * 100 for number in range(2000)}
    with pytest.raises(CdcError, match="cannot be written: .*full"):
        file.save(many, at(2))
    assert by_key(file) == (at(1), {b"1": b"x"})
    connection.execute("PRAGMA max_page_count = 100000")
    file.save(many, at(2))
    file.close()
    found = loaded(path)
    assert found is not None and found[0] == at(2) and len(found[1]) == 2000


# Crashes and damage.

SAVE = textwrap.dedent(
    """
    import sys
    from tests.unit.test_store_file import at, step
    from cdc.store_file import StoreFile
    file = StoreFile(sys.argv[1])
    found = file.load()
    number = 0 if found is None else found[0].position.ordinal
    print(number, flush=True)
    while True:
        number += 1
        file.save(*step(number))
        print(number, flush=True)
    """
)


def step(number: int) -> tuple[dict[bytes, bytes | None], StoreMark, bool]:
    """The changes of the save with this number."""
    changes: dict[bytes, bytes | None] = {
        str(number * 7 % 500 + each).encode(): str(number).encode() * 30 for each in range(40)
    }
    changes[str(number * 13 % 500).encode()] = None
    return changes, at(number), number % 100 == 0


def after(number: int) -> dict[bytes, bytes]:
    """The rows after that save."""
    rows: dict[bytes, bytes] = {}
    for each in range(max(number // 100 * 100, 1), number + 1):
        for key, line in step(each)[0].items():
            if line is None:
                rows.pop(key, None)
            else:
                rows[key] = line
    return rows


def test_kill_minus_nine_leaves_what_was_saved_last(tmp_path: Path) -> None:
    path, chance, last = tmp_path / "wells", random.Random(7), 0
    for _ in range(6):
        command = [sys.executable, "-c", SAVE, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                number = int(line)
                assert number >= last
                last = number
                if chance.random() < 0.01:
                    break
            child.kill()
            for line in child.stdout:
                last = int(line)
        found = loaded(path)
        assert found is not None and found[0].position is not None
        number = found[0].position.ordinal
        assert number in (last, last + 1)
        assert found == (at(number), after(number))
        last = number
    assert last > 100


def test_a_copy_with_its_log_is_whole(tmp_path: Path) -> None:
    file = StoreFile(tmp_path / "wells")
    for number in range(1, 50):
        file.save(*step(number))
    (tmp_path / "copy").mkdir()
    for each in tmp_path.glob("wells*"):
        shutil.copy(each, tmp_path / "copy")
    file.close()
    assert loaded(tmp_path / "copy" / "wells") == (at(49), after(49))


def test_damage_is_found(tmp_path: Path) -> None:
    """Whatever byte is another: the rows are those that were saved, or none, or somebody else's file."""
    path, chance = tmp_path / "wells", random.Random(3)
    rows: dict[bytes, bytes | None] = {str(number).encode(): str(number).encode() * 9 for number in range(600)}
    saved(path, rows, at(5))
    whole = path.read_bytes()
    places = [*range(100), *(chance.randrange(len(whole)) for _ in range(250))]
    outcomes = {"same": 0, "anew": 0, "refused": 0}
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        try:
            found = loaded(path)
        except ConfigurationError:
            outcomes["refused"] += 1
            continue
        assert found in (None, (at(5), rows)), place
        outcomes["same" if found else "anew"] += 1
    assert outcomes["anew"] > 100 and outcomes["same"] and outcomes["refused"], outcomes


@pytest.mark.parametrize("size", [0, 10, 100, 4096, 5000, 20_000])
def test_a_file_that_was_cut_off_begins_anew(tmp_path: Path, size: int) -> None:
    path = tmp_path / "wells"
    saved(path, {str(number).encode(): b"x" * 100 for number in range(600)})
    whole = path.read_bytes()
    assert len(whole) > 40_000
    path.write_bytes(whole[:size])
    if 0 < size < 100:
        with pytest.raises(ConfigurationError, match="is not the file of a store"):
            loaded(path)
        return
    assert loaded(path) is None
    saved(path, {b"1": b"x"})
    assert loaded(path) == (MARK, {b"1": b"x"})


def test_a_mark_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "wells"
    for said in (b"{}", b"[]", b"no", json.dumps(MARK.written() | {"position": "x"}).encode()):
        file = StoreFile(path)
        file.save({b"1": b"x"}, MARK)
        assert file._connection is not None
        file._connection.execute("UPDATE mark SET said = ?, sum = ?", (said, crc32(said)))
        assert file.load() is None and file.load() is None
        file.close()
