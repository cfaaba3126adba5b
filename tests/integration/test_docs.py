"""The documentation says what is so: its programs run, its commands exist, its messages are those of the source."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import psycopg
import pytest

from cdc.daemon.cli import group
from tests import harness
from tests.docs import (
    HOME,
    Example,
    anchors,
    blocks,
    commands,
    difference,
    examples,
    explained,
    fits,
    links,
    mentions,
    pages,
    said,
)

_SECONDS = 60
_CDC = "import sys; from cdc.daemon import main; sys.argv[0] = 'cdc'; main()"
_TABLE = """
CREATE TABLE wells (id int PRIMARY KEY, name text, project_id uuid, depth numeric, status text);
GRANT SELECT ON wells TO anon, authenticated;
CREATE PUBLICATION wells FOR TABLE wells;
"""
_ALREADY_THERE = (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject, psycopg.errors.DuplicateSchema)
EXAMPLES = [(path, example) for path in pages() for example in examples(path.read_text())]
MENTIONS = [(path, *mention) for path in pages() for mention in mentions(path.read_text())]


def _name(value: object) -> str:
    if isinstance(value, Path):
        return value.name
    return f"line{value.line}" if isinstance(value, Example) else str(value)


# Programs.


@pytest.fixture
def home(database: str) -> str:
    """A fresh database with all that the pages take for granted."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(harness.SETUP.encode())
        connection.execute(_TABLE)
    return database


def execute(dsn: str, text: str) -> None:
    """Run the statements of an ```sql block; what is there already stays as it is."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in re.split(r";\s*$", text, flags=re.MULTILINE):
            try:
                connection.execute(statement.encode())
            except _ALREADY_THERE:
                continue


class Program:
    """A running example, whose lines can be read while it runs."""

    def __init__(self, example: Example, folder: Path, dsn: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "CDC_"))}
        environment |= {"CDC_DSN": dsn, "PYTHONPATH": str(HOME), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
        if "CDC_PG_BIN" in os.environ:
            environment["CDC_PG_BIN"] = os.environ["CDC_PG_BIN"]
        self.process = subprocess.Popen(
            self._command(example, folder), cwd=folder, env=environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.printed = self.errors = ""
        self.printed_at: float | None = None
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _command(example: Example, folder: Path) -> list[str]:
        if not example.code:
            return [sys.executable, "-c", _CDC, *example.command]
        program = folder / "program.py"
        program.write_text("\n" * (example.line - 1) + example.code)
        return [sys.executable, str(program)]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            self.printed_at = time.monotonic()

    @property
    def is_silent(self) -> bool:
        """Whether it has printed something, and nothing more for a second."""
        return self.printed_at is not None and time.monotonic() - self.printed_at > 1

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()

    def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Wait until a condition holds, the program ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not condition() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def end(self) -> int:
        """Its exit code; fails when it does not end."""
        try:
            return self.process.wait(_SECONDS)
        finally:
            self.process.kill()
            for reader in self._readers:
                reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


def run(example: Example, folder: Path, dsn: str) -> str | None:
    """Run an example in a database; in words, what is wrong with it, or None."""
    for each in example.before:
        if isinstance(each, str):
            execute(dsn, each)
        elif Program(Example(1, 0, command=each), folder, dsn).end():
            return f"cdc {' '.join(each)} fails"
    program = Program(example, folder, dsn)
    try:
        if example.endless:
            _accompany(program, example, dsn)
    finally:
        code = program.end()
    allowed = (0, -signal.SIGINT, 128 + signal.SIGINT) if example.endless else (0,)
    if code not in allowed:
        return f"exit code {code}\n{program.errors}\n{program.printed}"
    wrong = None if example.expected is None else difference(example.expected, program.printed)
    return wrong and f"{wrong}\n{program.errors}"


def _accompany(program: Program, example: Example, dsn: str) -> None:
    """Do what the page does while the program runs, wait for what it prints, and press Ctrl-C."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        reads = "SELECT FROM pg_replication_slots WHERE active AND database = current_database()"
        program.until(lambda: connection.execute(reads).rowcount)
    for text in example.during:
        execute(dsn, text)
    if example.expected is not None:
        expected = example.expected
        program.until(lambda: difference(expected, program.printed) is None or program.is_silent)
    program.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(("page", "example"), EXAMPLES, ids=_name)
def test_example(
    page: Path,
    example: Example,
    home: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "REDIS_URL" in example.code:
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
    wrong = run(example, tmp_path, home)
    assert wrong is None, f"{page.name}, line {example.line}: {wrong}"


def test_an_example_that_is_wrong_is_reported(home: str, tmp_path: Path) -> None:
    def wrong(code: str, expected: str | None = None) -> str:
        return run(Example(1, 0, code=code, expected=expected), tmp_path, home) or ""

    assert wrong("print('well 1')", "well …") == ""
    assert "It printed:\nwell 1" in wrong("print('well 1')", "well 2")
    assert "It printed:\n\n" in wrong("pass", "well 1")
    assert "ZeroDivisionError" in wrong("1 / 0")
    assert "exit code 3" in wrong("raise SystemExit(3)")
    assert "UndefinedTable" in wrong(
        "import os, psycopg\nwith psycopg.connect(os.environ['CDC_DSN']) as db: db.execute('SELECT FROM nothing')"
    )
    endless = "import time\nprint('on', flush=True)\ntime.sleep(90)  # runs until Ctrl-C"
    example = Example(1, 0, code=endless, expected="off")
    program = Program(example, tmp_path, home)
    program.until(lambda: program.printed == "on\n")
    program.process.send_signal(signal.SIGINT)
    assert program.end() == -signal.SIGINT and difference("off", program.printed)


def test_what_is_printed_is_compared() -> None:
    assert difference("a\nb\n", "a\nb\n") is None
    assert difference("a … c", "a bb c\n") is None
    assert difference("a\n…\nd", "a\nb\nc\nd\n") is None
    assert difference("…\nd", "d\n") is None
    for expected, printed in (("a", "b"), ("a", "a\nb"), ("a\nb", "a"), ("a … c", "a b\nc"), ("a.", "ab"), ("", "a")):
        assert difference(expected, printed), (expected, printed)


PAGE = """
```python
print(1)
```

It prints:

```text
1
```

```python
# continues
print(2)
```

```text
2
```

## Next

```sql
SELECT 1;
```

```console
$ cdc tail wells --count 1
$ ls
out
$ cdc policies wells
a line
```

```python
wait()  # runs until Ctrl-C
```

```sql
SELECT 2;
```

```text
3
```
"""


def test_a_page_is_read() -> None:
    one, policies, endless = examples(PAGE)
    assert (one.line, one.parts, one.expected, one.before) == (3, 2, "1\n2\n", [])
    assert one.code.splitlines()[13 - one.line :] == ["# continues", "print(2)"]
    assert (policies.command, policies.expected, policies.before) == (
        ("policies", "wells"),
        "a line\n",
        ["SELECT 1;\n"],
    )
    assert (endless.endless, endless.before, endless.during, endless.expected) == (
        True,
        ["SELECT 1;\n", ("policies", "wells")],
        ["SELECT 2;\n"],
        "3\n",
    )
    assert [words for _, words in mentions("`cdc a --b 'c d'`, `x`\n    cdc e\n$ cdc f")] == [
        ["a", "--b", "c d"],
        ["e"],
        ["f"],
    ]
    assert commands("$ cdc a\n$ ls\nfile\n") == [(("a",), "")]


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_toml_can_be_read(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.kind == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for line, link in links(page.read_text()):
        target, _, anchor = link.partition("#")
        place = (page.parent / target) if target else page
        assert place.exists(), f"{page.name}, line {line}: there is no {link}"
        assert not anchor or anchor in anchors(place.read_text()), f"{page.name}, line {line}: there is no #{anchor}"


# Commands.


def unknown(words: list[str]) -> str | None:
    """What of a command line does not exist, or None."""
    command: click.Command = group
    context = click.Context(group)
    for number, word in enumerate(words):
        if word == "--":
            return None
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = command.get_command(context, word)
            if found is None:
                return f"there is no command {word}"
            command = found
        elif word.startswith("-"):
            known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
            if word.partition("=")[0] not in known | {"--help"}:
                return f"{' '.join(words[:number])} has no option {word}"
    return None


@pytest.mark.parametrize(("page", "line", "words"), MENTIONS, ids=_name)
def test_a_command_exists(page: Path, line: int, words: list[str]) -> None:
    assert unknown(words) is None, f"{page.name}, line {line}"


def test_a_command_that_does_not_exist_is_reported() -> None:
    assert unknown(["nothing", "wells"]) == "there is no command nothing"
    assert unknown(["tail", "wells", "--nothing"]) == "tail wells has no option --nothing"
    assert unknown(["sandbox", "--supabase", "--", "x", "--nothing"]) is None
    assert unknown(["tail", "--help"]) is None


# Messages.


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_no_message_is_stale(page: Path) -> None:
    texts = [each.text for each in said()]
    stale = [(line, text) for line, text in explained(page.read_text()) if not any(fits(text, one) for one in texts)]
    assert not stale, f"{page.name} explains what cdc does not say"


def test_every_error_is_explained() -> None:
    rows = [text for _, text in explained((HOME / "docs" / "troubleshooting.md").read_text())]
    missing = [
        f"{each.place}: {each.text}" for each in said() if each.is_error and not any(fits(r, each.text) for r in rows)
    ]
    assert not missing, "\n".join(["docs/troubleshooting.md lacks:", *missing])


def test_messages_are_compared(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        'raise SlotError(f"slot {name!r} is gone: " "make another")\nlog("other")\nraise DecodeError("short", 1)\n'
    )
    texts = [(each.text, each.is_error) for each in said(tmp_path)]
    assert ("slot … is gone: make another", True) in texts and ("other", False) in texts
    assert ("… (message type …, byte offset …)", True) in texts
    assert fits("slot … is gone", texts[0][0]) and fits("slot … is gone: make …", texts[0][0])
    for wrong in ("slot … has gone", "is gone", "… is gone"):
        assert not fits(wrong, texts[0][0])
    assert explained("| message | cause |\n|---|---|\n| `a … b` | c |\n\n| x | y |\n|---|---|\n| `z` | |\n") == [
        (3, "a … b")
    ]
