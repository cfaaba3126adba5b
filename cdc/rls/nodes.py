"""The reader of pg_node_tree text, the form in which PostgreSQL stores a policy's expression.

Pure: no I/O. The format is that of nodeToString in the server's src/backend/nodes/outfuncs.c, read as read.c does:
`{TAG :field value …}` is a node, `( … )` a list, `<>` nothing, a backslash keeps the next character from being
special, and a datum is its length and its bytes as signed numbers, `4 [ 1 0 0 0 ]`. Everything else is a word.
The reader knows no tags, so every version of the server can be read; what a tag means is for its callers.

Fields and values alternate, so a word that begins with a colon can still be a value. The reader keeps its own
stack and bounds it: neither a deep tree nor a malformed one ends in anything but a `TreeError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

__all__ = ["Node", "TreeError", "Value", "read"]

_DEPTH = 200
_TOKEN = re.compile(r"[ \n\t]*(?:([(){}])|((?:\\.|[^\\ \n\t(){}])+))", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]{1,10}")
_DATUM = ":constvalue"


class TreeError(ValueError):
    """The text is not a node tree, or not one with the field that is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node: its tag, such as `OPEXPR`, and its fields by name, without the colon."""

    tag: str
    fields: dict[str, Value]

    def text(self, name: str) -> str:
        """The field's word. Raises TreeError when it is not there or is something else."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise TreeError(f"{self.tag} has no word {name}")
        return value

    def number(self, name: str) -> int:
        """The field's number. Raises TreeError when it is not there or is something else."""
        word = self.text(name)
        if not _NUMBER.fullmatch(word):
            raise TreeError(f"{self.tag} has no number {name}")
        return int(word)

    def node(self, name: str) -> Node:
        """The field's node. Raises TreeError when it is not there or is something else."""
        value = self.fields.get(name)
        if not isinstance(value, Node):
            raise TreeError(f"{self.tag} has no node {name}")
        return value

    def nodes(self, name: str) -> list[Node]:
        """The field's list of nodes, empty for nothing. Raises TreeError when it is something else."""
        value = self.fields.get(name)
        items = () if value is None else value
        if not isinstance(items, tuple):
            raise TreeError(f"{self.tag} has no list {name}")
        found = [item for item in items if isinstance(item, Node)]
        if len(found) != len(items):
            raise TreeError(f"{self.tag} has a list {name} of something else than nodes")
        return found


Value: TypeAlias = "None | str | bytes | Node | tuple[Value, ...]"
"""What a field or a list holds: nothing, a word, the bytes of a datum, a node, a list."""


@lru_cache(maxsize=1024)
def read(text: str) -> Node:
    """The tree that the text spells. Raises TreeError for anything that is not one node, or is nested too deep."""
    tokens = _tokens(text)
    levels: list[list[Value]] = [[]]
    tags: list[str | None] = []
    for special, word in tokens:
        level = levels[-1]
        if special in ("{", "("):
            tags.append(next(tokens, ("", ""))[1] if special == "{" else None)
            levels.append([])
            if len(levels) > _DEPTH:
                raise TreeError(f"the tree is nested more than {_DEPTH} levels deep")
        elif special:
            _close(special, levels, tags)
        elif level and level[-1] == _DATUM and len(level) % 2 and word != "<>":
            level.append(_datum(word, tokens))
        else:
            level.append(None if word == "<>" else _ESCAPED.sub(r"\1", word))
    (top,) = levels[0] if len(levels) == 1 and len(levels[0]) == 1 else (None,)
    if not isinstance(top, Node):
        raise TreeError("the text is not one whole node")
    return top


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Pairs (bracket, word), of which one is empty."""
    position, end = 0, len(text.rstrip(" \n\t"))
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise TreeError(f"the text ends within a word, at {position}")
        position = match.end()
        yield match[1] or "", match[2] or ""


def _close(bracket: str, levels: list[list[Value]], tags: list[str | None]) -> None:
    """Turn the innermost open level into a node or a list of the level around it."""
    tag = tags.pop() if tags else None
    if len(levels) == 1 or (tag is None) != (bracket == ")"):
        raise TreeError(f"{bracket} closes what is not open")
    items = levels.pop()
    levels[-1].append(tuple(items) if tag is None else _node(tag, items))


def _node(tag: str, items: list[Value]) -> Node:
    names, values = items[::2], items[1::2]
    fields = {name[1:]: value for name, value in zip(names, values, strict=False) if isinstance(name, str)}
    named = all(isinstance(name, str) and name[:1] == ":" for name in names)
    if not tag or not named or len(names) != len(values) or len(fields) != len(names):
        raise TreeError(f"the fields of {tag or 'a node'} are not pairs of a name and a value")
    return Node(tag, fields)


def _datum(length: str, tokens: Iterator[tuple[str, str]]) -> bytes:
    """The bytes between the brackets. Raises TreeError."""
    if not _NUMBER.fullmatch(length) or next(tokens, ("", ""))[1] != "[":
        raise TreeError("a datum has no length or no bytes")
    values: list[int] = []
    for _, word in tokens:
        if word == "]" and len(values) >= int(length) >= 0:
            return bytes(values)
        if not _NUMBER.fullmatch(word) or not -128 <= int(word) <= 255:
            break
        values.append(int(word) & 0xFF)
    raise TreeError("a datum's bytes are not as many as its length, or no bytes")
