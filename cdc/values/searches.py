"""Binary cells of tsvector and tsquery, as the text that the server prints for them.

Pure: no I/O, no clock. The manual: "Data Types", Text Search Types.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cdc.values.binary import Reader
from cdc.values.equality import quoted

__all__ = ["tsquery_of_binary", "tsvector_of_binary"]

_WEIGHTS = ("", "C", "B", "A")  # of a position in a tsvector
_LABELS = ((8, "A"), (4, "B"), (2, "C"), (1, "D"))  # of an operand in a tsquery
_OPERAND, _OPERATOR = 1, 2
_NOT, _AND, _OR, _PHRASE = 1, 2, 3, 4
_PRIORITIES = {_OR: 1, _AND: 2, _PHRASE: 3, _NOT: 4}
_OPERAND_PRIORITY = 5


def tsvector_of_binary(cell: bytes) -> str:
    """The text of a tsvector: Int32 count; for each a string, Int16 count and that many positions.

    Raises ValueError.
    """
    reader = Reader(cell)
    lexemes = [_lexeme(reader) for _ in range(_counted(reader))]
    reader.end()
    return " ".join(lexemes)


def _lexeme(reader: Reader) -> str:
    word = _quoted(reader.string())
    positions = [reader.unsigned(2) for _ in range(reader.unsigned(2))]
    if not positions:
        return word
    return f"{word}:{','.join(f'{position & 0x3FFF}{_WEIGHTS[position >> 14]}' for position in positions)}"


def _quoted(word: str) -> str:
    doubled = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def _counted(reader: Reader) -> int:
    """An Int32 that counts what follows, each of at least one byte."""
    count = reader.signed(4)
    if not 0 <= count <= reader.left:
        raise ValueError(f"a text search value cannot have {count} parts in {reader.left} bytes")
    return count


@dataclass(slots=True)
class _Part:
    """An operand or an operation that is printed already, in pieces, so that it grows cheaply on both sides."""

    pieces: deque[str]
    priority: int
    is_phrase: bool = False

    def inside(self, priority: int, *, is_right_of_phrase: bool = False) -> _Part:
        """In parentheses if it needs them as an operand of an operation of that priority."""
        if self.priority < priority or (self.is_phrase and is_right_of_phrase):
            self.pieces.appendleft("( ")
            self.pieces.append(" )")
        return self


def tsquery_of_binary(cell: bytes) -> str:
    """The text of a tsquery: Int32 count; then operators, each before its right and its left operand.

    An operand is Int8 1, Int8 weights, Int8 whether a prefix, string; an operator Int8 2, Int8 which, and for a
    phrase Int16 distance. Raises ValueError.
    """
    reader = Reader(cell)
    items = [_item(reader) for _ in range(_counted(reader))]
    reader.end()
    done: list[_Part] = []
    for item in reversed(items):
        done.append(item if isinstance(item, _Part) else _operation(*item, done, cell))
    if len(done) > 1:
        raise _malformed(cell)
    return "".join(done[0].pieces) if done else ""


def _item(reader: Reader) -> _Part | tuple[int, int]:
    """An operand, or an operator with its distance."""
    kind = reader.unsigned(1)
    if kind == _OPERAND:
        return _operand(reader)
    operator = reader.unsigned(1)
    if kind != _OPERATOR or operator not in _PRIORITIES:
        raise ValueError(f"a tsquery has no item {kind} with operator {operator}")
    return operator, reader.unsigned(2) if operator == _PHRASE else 0


def _operand(reader: Reader) -> _Part:
    weights, is_prefix = reader.unsigned(1), reader.unsigned(1)
    labels = ("*" if is_prefix else "") + "".join(label for bit, label in _LABELS if weights & bit)
    word = _quoted(reader.string())
    return _Part(deque([f"{word}:{labels}" if labels else word]), _OPERAND_PRIORITY)


def _operation(operator: int, distance: int, done: list[_Part], cell: bytes) -> _Part:
    """The operation on the last one or two parts of `done`, which it takes away."""
    priority = _PRIORITIES[operator]
    if len(done) < (1 if operator == _NOT else 2):
        raise _malformed(cell)
    if operator == _NOT:
        pieces = done.pop().inside(priority).pieces
        pieces.appendleft("!")
        return _Part(pieces, priority)
    is_phrase = operator == _PHRASE
    # The items are read from the end: the right operand, which stood in front, was done last.
    right = done.pop().inside(priority, is_right_of_phrase=is_phrase)
    left = done.pop().inside(priority)
    return _Part(_joined(left.pieces, _sign(operator, distance), right.pieces), priority, is_phrase)


def _sign(operator: int, distance: int) -> str:
    if operator == _PHRASE:
        return " <-> " if distance == 1 else f" <{distance}> "
    return " & " if operator == _AND else " | "


def _joined(left: deque[str], sign: str, right: deque[str]) -> deque[str]:
    """Both with a sign between them; the shorter moves."""
    if len(left) < len(right):
        right.appendleft(sign)
        right.extendleft(reversed(left))
        return right
    left.append(sign)
    left.extend(right)
    return left


def _malformed(cell: bytes) -> ValueError:
    return ValueError(f"{quoted(cell)} is not a tsquery in binary form")
