"""Reads the documentation: its programs with what they print, its commands, and the messages that it explains.

How a page is read:

- A ```python block is a whole program. One whose first line begins with `# continues` goes on with the program above.
- The first ```text block below a program is what it prints. `…` stands for anything within a line, a line with only `…`
  for any lines. The blocks of a continued program follow each other.
- A ```sql block is run before every program and command that stands below it in the same section (`##`). Right behind
  a program with the words `runs until Ctrl-C` in it, it is what somebody does while that program runs; when the
  program has printed what it should, it gets SIGINT.
- In a ```console block, lines that begin with `$` are commands. When the lines below show what one of `cdc` prints, it
  is run, there and before every example that stands below it in the same section.

Wherever a page names a command of `cdc`, that must exist with its options.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "HOME",
    "Block",
    "Example",
    "Said",
    "anchors",
    "blocks",
    "commands",
    "difference",
    "examples",
    "explained",
    "fits",
    "links",
    "mentions",
    "pages",
    "said",
]

HOME = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"```([a-z]*)\s*")
_ENDLESS = "runs until Ctrl-C"
_CONTINUES = "# continues"


def pages() -> list[Path]:
    """README.md, if it is there, and every page of docs/."""
    return [path for path in [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))] if path.exists()]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line in the page, and the number of its section."""

    kind: str
    text: str
    line: int
    section: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    kind: str | None = None
    lines: list[str] = []
    start = section = 0
    for number, line in enumerate(page.splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        if kind is None and fence:
            kind, lines, start = fence[1], [], number + 1
        elif kind is not None and line.strip() == "```":
            found.append(Block(kind, "".join(f"{each}\n" for each in lines), start, section))
            kind = None
        elif kind is not None:
            lines.append(line)
        elif line.startswith("## "):
            section += 1
    assert kind is None, f"the block in line {start} has no end"
    return found


@dataclass
class Example:
    """Something to run: a program, or a command of `cdc`.

    Attributes:
        line: its first line in the page.
        section: number of its section.
        code: the program; empty for a command.
        command: the command's words, without `cdc`.
        before: SQL, and commands of `cdc`, to run before it.
        during: SQL to run while it runs.
        expected: what it prints; None when the page does not say.
        parts: how many blocks it is made of.
    """

    line: int
    section: int
    code: str = ""
    command: tuple[str, ...] = ()
    before: list[str | tuple[str, ...]] = field(default_factory=list)
    during: list[str] = field(default_factory=list)
    expected: str | None = None
    parts: int = 1

    @property
    def endless(self) -> bool:
        """Whether it has to be told to end."""
        return _ENDLESS in self.code


def examples(page: str) -> list[Example]:
    """What a page lets its reader run, in its order."""
    found: list[Example] = []
    before: list[str | tuple[str, ...]] = []
    section, last, silent = 0, "", False
    for block in blocks(page):
        if block.section != section:
            section, before, silent = block.section, [], False
        if block.kind == "python":
            _python(block, found, before)
            silent = True
        elif block.kind == "sql" and last == "python" and found[-1].endless:
            found[-1].during.append(block.text)
        elif block.kind == "sql":
            before.append(block.text)
        elif block.kind == "text" and silent:
            found[-1].expected = (found[-1].expected or "") + block.text
            silent = False
        elif block.kind == "console":
            for words, output in commands(block.text):
                if output:
                    found.append(Example(block.line, section, command=words, before=list(before), expected=output))
                    before.append(words)
                    silent = False
        last = block.kind
    return found


def _python(block: Block, found: list[Example], before: list[str | tuple[str, ...]]) -> None:
    if not block.text.startswith(_CONTINUES):
        found.append(Example(block.line, block.section, code=block.text, before=list(before)))
        return
    assert found and found[-1].code, f"line {block.line} continues nothing"
    # As many empty lines as lie between, so that a traceback names the line of the page.
    gap = block.line - found[-1].line - found[-1].code.count("\n")
    found[-1].code += "\n" * max(gap, 0) + block.text
    found[-1].parts += 1


def commands(console: str) -> list[tuple[tuple[str, ...], str]]:
    """The commands of `cdc` in a console block, each with what it prints."""
    found: list[tuple[tuple[str, ...], str]] = []
    ours = False
    for line in console.splitlines():
        if line.startswith("$"):
            words = _words(line[1:])
            ours = words[:1] == ["cdc"]
            if ours:
                found.append((tuple(words[1:]), ""))
        elif ours:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
    return found


def _words(line: str) -> list[str]:
    """The words of a command line; what stands in quotes stays one word."""
    return [one or two or three for one, two, three in re.findall(r"'([^']*)'|\"([^\"]*)\"|(\S+)", line)]


def mentions(page: str) -> Iterator[tuple[int, list[str]]]:
    """Every command of `cdc` that a page names, on a line of its own or in the text; with the number of the line."""
    for number, line in enumerate(page.splitlines(), 1):
        whole = re.match(r"(?:\$ |    )?(cdc [a-z-].*)", line)
        for text in [whole[1]] if whole else re.findall(r"`(cdc [a-z-][^`]*)`", line):
            words = _words(text)[1:]
            yield number, words[: words.index("#")] if "#" in words else words


def difference(expected: str, printed: str) -> str | None:
    """In words, how what was printed differs from what a page says; None when it does not."""
    if re.fullmatch(_pattern(expected), printed.strip() + "\n"):
        return None
    return f"The page says:\n{expected}\nIt printed:\n{printed}"


def _pattern(expected: str) -> str:
    patterns = [
        r"(?:[^\n]*\n)*?" if line.strip() == "…" else re.escape(line).replace("…", r"[^\n]*") + r"\n"
        for line in expected.strip().splitlines()
    ]
    return "".join(patterns)


def links(page: str) -> Iterator[tuple[int, str]]:
    """The targets of a page's links within the project, with the number of the line."""
    for number, line in enumerate(page.splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if "://" not in target:
                yield number, target


def anchors(page: str) -> set[str]:
    """What a link can name of a page: its headings."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Messages.


@dataclass(frozen=True)
class Said:
    """Something that the program says: its text, with `…` for values, and where."""

    text: str
    place: str
    is_error: bool


_ERRORS = {
    "CdcError",
    "ConfigurationError",
    "ConnectionFailed",
    "GapError",
    "HandlerError",
    "NotYetVisible",
    "SlotError",
    "SubscriptionError",
    "SandboxError",
    "BadParameter",
    "UsageError",
    "TimeoutError",
}
"""Classes whose messages a user has to understand wherever they are made."""
_WIRE = {"DecodeError", "UnsupportedMessage"}
_PLAIN = {"TypeError", "ValueError"}
_USED_BY_HAND = ("lsn.py", "row.py", "events.py", "tuples.py", "cache.py", "values/equality.py", "daemon/config.py")
"""Files whose TypeError and ValueError reach a user; elsewhere they are caught and put in other words."""
_INSIDE = ("testing/guardian.py", "demo/", "rls/nodes.py")


def said(folder: Path = HOME / "cdc") -> list[Said]:
    """Every text in the source; those that an error is made of are marked."""
    found: list[Said] = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        tree = ast.parse(path.read_text())
        errors = {id(node): kind for node, kind in _raised(tree, name)}
        for node in ast.walk(tree):
            text = _text(node)
            if text is not None and text.strip("… "):
                kind = errors.get(id(node))
                text = "… (message type …, byte offset …)" if kind in _WIRE else text
                found.append(Said(text, f"{name}:{node.lineno}", kind is not None))  # type: ignore[attr-defined]
    return found


def _raised(tree: ast.AST, name: str) -> Iterator[tuple[ast.AST, str]]:
    """The first arguments of errors that are made, with the error's class."""
    if name.startswith(_INSIDE):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if kind in _ERRORS | _WIRE or (kind in _PLAIN and name in _USED_BY_HAND):
                yield from ((argument, kind) for argument in _meant(node.args[0], tree))


def _meant(argument: ast.AST, tree: ast.AST) -> list[ast.AST]:
    """An argument, or what is assigned to it when it is a variable."""
    if not isinstance(argument, ast.Name):
        return [argument]
    assigned = (node for node in ast.walk(tree) if isinstance(node, ast.Assign))
    return [node.value for node in assigned if ast.dump(node.targets[0]).startswith(f"Name(id='{argument.id}'")]


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else left + right
    return None


def explained(page: str) -> list[tuple[int, str]]:
    """The messages in a page's tables: the first cell of each row below `| message |`, `| reason |` or `| log line |`,
    which is code; with its line."""
    found: list[tuple[int, str]] = []
    inside = False
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith("|"):
            inside = False
        elif re.match(r"\| (message|reason|log line) \|", line):
            inside = True
        elif inside and not line.startswith("|--"):
            cell = re.match(r"\| (`+) ?(.+?) ?\1 \|", line)
            assert cell, f"line {number}: a message is written as code"
            found.append((number, cell[2].replace("\\|", "|")))
    return found


def fits(message: str, text: str) -> bool:
    """Whether `text`, as it stands in the source, begins as a page writes it; `…` stands for anything in both."""
    if message.startswith("…") and not text.startswith("…"):
        return False
    pattern = ".*".join(re.escape(part) for part in message.removesuffix("…").split("…"))
    return re.match(pattern, text, re.DOTALL) is not None
