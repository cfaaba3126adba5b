"""Functions of scalars with any datums at all: they give a datum, or say Failed or Undecided, and nothing else.

Another exception would end the stream.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cdc.operators import Context, Datums, Failed, Undecided
from cdc.operators.addresses import Address
from cdc.operators.enums import Label
from cdc.values import Types
from cdc.values.builtin import SCALARS
from tests.integration.test_operators_scalars import LITERALS, TABLE

_CONTEXTS = [Context(), Context(zone=ZoneInfo("America/New_York")), Context(zone=ZoneInfo("Pacific/Apia"))]


def whole(bits: int) -> Callable[[random.Random], int]:
    """Integers of a type, the ends of its range and small ones often among them."""

    def draw(chance: random.Random) -> int:
        bound = 1 << (bits - 1)
        near = chance.randint(-3, 3)
        return chance.choice(
            [
                near,
                max(-bound, min(bound - 1, bound + near)),
                max(-bound, -bound + near),
                chance.randint(-bound, bound - 1) >> chance.randrange(bits),
            ]
        )

    return draw


def double(chance: random.Random) -> float:
    value: float = struct.unpack("<d", chance.randbytes(8))[0]
    return chance.choice([value, float(chance.randint(-9, 9)), float("nan"), float("inf"), float("-inf"), -0.0])


def single(chance: random.Random) -> float:
    value: float = struct.unpack("<f", chance.randbytes(4))[0]
    return chance.choice([value, float(chance.randint(-9, 9)), float("nan"), float("inf"), -0.0])


def numeric(chance: random.Random) -> Decimal:
    digits = chance.randint(0, 10 ** chance.choice([1, 5, 40]))
    plain = Decimal(chance.choice([1, -1]) * digits or 0).scaleb(-chance.choice([0, 2, 30, 1000]))
    great = Decimal(10) ** chance.choice([1, 50, 5000, 131_071])
    return chance.choice([plain, great, Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity"), Decimal(0)])


def timestamp(chance: random.Random) -> int:
    ends = [-211_813_488_000_000_000, 9_223_371_331_199_999_999, -(2**63), 2**63 - 1]
    return chance.choice([*ends, chance.randint(ends[0], ends[1]), chance.randint(-(10**18), 10**18)])


def address(chance: random.Random) -> Address:
    version, size = chance.choice([(4, 32), (6, 128)])
    number, bits = chance.getrandbits(size), chance.randint(0, size)
    return Address(version, f"{number:0{size}b}"[:bits], number)


DRAWN: dict[str, Callable[[random.Random], Any]] = {
    "boolean": lambda chance: chance.random() < 0.5,
    "smallint": whole(16),
    "integer": whole(32),
    "bigint": whole(64),
    "oid": lambda chance: chance.getrandbits(32),
    "xid": lambda chance: chance.getrandbits(32),
    "xid8": lambda chance: chance.getrandbits(64),
    "pg_lsn": lambda chance: chance.getrandbits(64),
    "money": whole(64),
    "tid": lambda chance: (chance.getrandbits(32), chance.getrandbits(16)),
    "real": single,
    "double precision": double,
    "numeric": numeric,
    "uuid": lambda chance: f"{chance.getrandbits(128):032x}",
    "anyenum": lambda chance: Label(chance.randint(0, 2), "x"),
    "date": lambda chance: chance.choice(
        [-(2**31), 2**31 - 1, -2_451_545, 2_145_031_948, chance.randint(-(10**6), 10**8)]
    ),
    "timestamp without time zone": timestamp,
    "timestamp with time zone": timestamp,
    "time without time zone": lambda chance: chance.choice([0, 86_400_000_000, chance.randrange(86_400_000_000)]),
    "time with time zone": lambda chance: (chance.randrange(86_400_000_000), chance.randint(-57_599, 57_599)),
    "interval": lambda chance: (whole(32)(chance), whole(32)(chance), whole(64)(chance)),
    "inet": address,
    "cidr": address,
    "macaddr": lambda chance: "08:00:2b:01:02:03",
    "macaddr8": lambda chance: "08:00:2b:01:02:03:04:05",
    "bytea": lambda chance: chance.randbytes(chance.randint(0, 3)),
    "bit": lambda chance: f"{chance.getrandbits(9):b}"[: chance.randint(0, 9)],
    "bit varying": lambda chance: f"{chance.getrandbits(9):b}"[: chance.randint(0, 9)],
    "text": lambda chance: chance.choice(
        [*LITERALS["text"], "\0", "é" * 9, "../../etc/passwd", "A/B", "/", "x" * 9000]
    ),
}


def drawn(name: str, chance: random.Random) -> Any:
    """A datum for an argument, which may have a name before its type."""
    if name not in DRAWN:
        name = name.partition(" ")[2]
    return DRAWN[name](chance)


@pytest.mark.parametrize("signature", TABLE)
def test_a_function_gives_a_datum_or_says_why_not(signature: str) -> None:
    builtin, chance = TABLE[signature], random.Random(signature)
    inside = signature[signature.index("(") + 1 : -1]
    names = inside.split(", ") if inside else []
    for _ in range(100):
        arguments = [None if not builtin.strict and chance.random() < 0.2 else drawn(name, chance) for name in names]
        context = [chance.choice(_CONTEXTS)] if builtin.contextual else []
        with contextlib.suppress(Failed, Undecided):
            builtin.call(*context, *arguments)


@pytest.mark.parametrize("oid", SCALARS)
def test_a_text_is_read_or_said_why_not(oid: int) -> None:
    datums, chance = Datums(Types()), random.Random(oid)
    read, take, output = datums.reader(oid), datums.input(oid), datums.output(oid)
    words = [literal for literals in LITERALS.values() for literal in literals]
    words += [
        "9" * 9000,
        "1e" + "9" * 5000,
        "-" * 5000,
        "\0",
        "\ud800",
        "٣",
        "1:" * 500,
        "(" * 50,
        "{" * 50,
        "0" * 9000,
    ]
    for _ in range(400):
        word = chance.choice(words)
        place = chance.randint(0, len(word))
        text = chance.choice([word, word[:place] + chance.choice("0-+:. é\0") + word[place:], word[place:]])
        if read is not None:
            try:
                value = read(text.encode(errors="surrogatepass"))
            except ValueError:
                pass
            else:
                written(output, chance.choice(_CONTEXTS), value)
        if take is not None:
            context = chance.choice(_CONTEXTS)
            try:
                value = take(context, text)
            except (Failed, Undecided):
                pass
            else:
                written(output, context, value)


def written(output: Any, context: Context, value: object) -> None:
    if output is not None:
        with contextlib.suppress(Failed, Undecided):
            assert isinstance(output(context, value), str)
