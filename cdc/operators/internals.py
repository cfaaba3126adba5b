"""PostgreSQL's own small types, and money: comparisons.

Pure: no I/O. Transaction ids have no order. Money is printed by lc_monetary; it is read in the form of the locale C and
of English ones, and written nowhere. The manual: "Data Types", Object Identifier Types, pg_lsn Type, Monetary Types.
"""

from __future__ import annotations

import operator
import re
from decimal import Decimal

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec, failing
from cdc.operators.context import Context, Undecided
from cdc.operators.orders import comparisons

__all__ = ["CODECS", "TABLE"]

_LSN = re.compile(r"([0-9a-fA-F]{1,8})/([0-9a-fA-F]{1,8})")
_MONEY = re.compile(r"(-?)\$([0-9]{1,3}(?:,[0-9]{3})*)\.([0-9]{2})")
_TID = re.compile(r"\(([0-9]{1,10}),([0-9]{1,5})\)")
_DIGITS = re.compile(r"0|[1-9][0-9]{0,8}")


def _lsn_input(context: Context, text: str) -> int:
    match = _LSN.fullmatch(text)
    if match is None:
        raise failing("pg_lsn")
    return int(match[1], 16) << 32 | int(match[2], 16)


def _read_lsn(cell: bytes) -> int:
    match = _LSN.fullmatch(cell.decode())
    if match is None:
        raise ValueError("not a pg_lsn")
    return int(match[1], 16) << 32 | int(match[2], 16)


def _lsn_text(context: Context, lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _read_money(cell: bytes) -> int:
    match = _MONEY.fullmatch(cell.decode())
    if match is None:
        raise ValueError("not money as the locale C prints it")
    cents = int(match[2].replace(",", "") + match[3])
    return -cents if match[1] else cents


def _read_tid(cell: bytes) -> tuple[int, int]:
    match = _TID.fullmatch(cell.decode())
    if match is None:
        raise ValueError("not a tid")
    return int(match[1]), int(match[2])


def _id_input(context: Context, text: str) -> int:
    if _DIGITS.fullmatch(text):
        return int(text)
    raise Undecided("a form of transaction id")  # much of what is wrong is read, too


_ID = Codec(int, _id_input, lambda context, value: str(value))

CODECS = {
    27: Codec(_read_tid, None, lambda context, tid: f"({tid[0]},{tid[1]})"),
    28: _ID,
    5069: _ID,
    790: Codec(_read_money),
    3220: Codec(_read_lsn, _lsn_input, _lsn_text),
}


def _same_id(xid: int, number: int) -> bool:
    return xid == number % 2**32


TABLE: Table = {
    **comparisons("cash_{}", "money"),
    **comparisons("pg_lsn_{}", "pg_lsn"),
    "pg_lsn_mi(pg_lsn, pg_lsn)": Builtin(lambda one, two: Decimal(one - two)),
    **comparisons("xid8{}", "xid8"),
    **comparisons("tid{}", "tid"),
    "xideq(xid, xid)": Builtin(operator.eq),
    "xidneq(xid, xid)": Builtin(operator.ne),
    "xideqint4(xid, integer)": Builtin(_same_id),
    "xidneqint4(xid, integer)": Builtin(lambda xid, number: not _same_id(xid, number)),
    "xid(xid8)": Builtin(lambda value: value % 2**32),
}
