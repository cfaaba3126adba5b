"""Hand-made node trees, rights and rows for the tests of compiled policies."""

from __future__ import annotations

import struct
from typing import Any

from cdc.relation import Column, Relation
from cdc.rls import ColumnRights, Function, Policy, Subject, TableRights

BOOL, INT, TEXT, UUID, CHAR, VARCHAR, NUMERIC, DATE, JSONB = 16, 23, 25, 2950, 1042, 1043, 1700, 1082, 3802
ONE = "11111111-1111-4111-8111-111111111111"
COLUMNS = [("id", INT), ("owner", UUID), ("name", TEXT), ("ok", BOOL), ("code", CHAR), ("tag", VARCHAR)]
UID, JWT, ODD = 20001, 20002, 20003


def relation(columns: list[tuple[str, int]] = COLUMNS, key: tuple[int, ...] | None = (0,)) -> Relation:
    made = tuple(Column(name, oid, -1, name == "id", bytes.decode) for name, oid in columns)
    return Relation(500, "public", "wells", "d", made, key)


def function(name: str, body: str, result: int, **changed: Any) -> Function:
    values: dict[str, Any] = {
        "schema": "auth",
        "name": name,
        "arguments": "",
        "language": "sql",
        "body": body,
        "security_definer": False,
        "settings": (),
        "result": result,
        "returns_set": False,
        "argument_count": 0,
        "kind": "f",
        "volatility": "s",
        "executable": True,
    }
    return Function(**(values | changed))


def internal(name: str, arguments: str, result: int, **changed: Any) -> Function:
    """A function of PostgreSQL itself."""
    count = len(arguments.split(", ")) if arguments else 0
    values = {"schema": "pg_catalog", "arguments": arguments, "language": "internal", "argument_count": count}
    return function(name, name, result, **(values | changed))


# operator's OID: its name, its function, the types of its arguments
OPERATORS = {
    91: ("=", "booleq", "boolean, boolean"),
    96: ("=", "int4eq", "integer, integer"),
    98: ("=", "texteq", "text, text"),
    416: ("=", "int84eq", "bigint, integer"),
    518: ("<>", "int4ne", "integer, integer"),
    521: (">", "int4gt", "integer, integer"),
    528: ("/", "int4div", "integer, integer"),
    551: ("+", "int4pl", "integer, integer"),
    607: ("=", "oideq", "oid, oid"),
    1054: ("=", "bpchareq", "character, character"),
    1093: ("=", "date_eq", "date, date"),
    1752: ("=", "numeric_eq", "numeric, numeric"),
    2972: ("=", "uuid_eq", "uuid, uuid"),
    3477: ("->>", "jsonb_object_field_text", "from_json jsonb, field_name text"),
}
RESULTS = {"int4div": INT, "int4pl": INT, "jsonb_object_field_text": TEXT}

FUNCTIONS = {
    UID: function("uid", "select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid", UUID),
    JWT: function("jwt", "select nullif(current_setting('request.jwt.claims', true), '')::jsonb", JSONB),
    ODD: function("odd", "select 'x'::uuid", UUID),
    2077: internal("current_setting", "text", TEXT),
    3294: internal("current_setting", "text, boolean", TEXT),
    870: internal("lower", "text", TEXT),
    1317: internal("length", "text", INT),
} | {oid + 50000: internal(name, arguments, RESULTS.get(name, BOOL)) for oid, (_, name, arguments) in OPERATORS.items()}


def rights(*policies: Policy, **changed: Any) -> TableRights:
    values: dict[str, Any] = {
        "oid": 500,
        "schema": "public",
        "table": "wells",
        "role": "reader",
        "superuser": False,
        "bypass_rls": False,
        "owns": False,
        "row_security": True,
        "forced": False,
        "schema_usage": True,
        "select": True,
        "columns": {at: ColumnRights(name, oid, 0, True) for at, (name, oid) in enumerate(COLUMNS, 1)},
        "policies": policies,
        "functions": FUNCTIONS,
        "operators": {oid: name for oid, (name, _, _) in OPERATORS.items()} | {15: "=", 519: "<=>"},
        "operator_functions": {oid: oid + 50000 for oid in OPERATORS},
        "nondeterministic": frozenset({777}),
        "utf8": True,
    }
    return TableRights(**(values | changed))


def policy(tree: str | None, name: str = "p", permissive: bool = True, applies: bool = True) -> Policy:
    return Policy(name, permissive, "ALL", ("public",), tree, None if tree is None else "…", applies)


def restrictive(tree: str, name: str = "r") -> Policy:
    return policy(tree, name, permissive=False)


def datum(data: bytes, length: int | None = None) -> str:
    return f"{len(data) if length is None else length} [ {' '.join(str(byte - 256 * (byte > 127)) for byte in data)} ]"


def const(oid: int, data: bytes | None, length: int, collation: int = 0) -> str:
    value = "<>" if data is None else datum(data, length if length > 0 else None)
    null = "true" if data is None else "false"
    return (
        f"{{CONST :consttype {oid} :consttypmod -1 :constcollid {collation} :constlen {length} :constbyval true "
        f":constisnull {null} :location -1 :constvalue {value}}}"
    )


def boolean(value: bool | None) -> str:
    return const(BOOL, None if value is None else bytes([value, 0, 0, 0, 0, 0, 0, 0]), 1)


def integer(value: int | None) -> str:
    return const(INT, None if value is None else struct.pack("<q", value), 4)


def varlena(data: bytes) -> bytes:
    return struct.pack("<I", (len(data) + 4) << 2) + data


def text(value: str) -> str:
    return const(TEXT, varlena(value.encode()), -1, 100)


def var(name: str, level: int = 0, kind: int | None = None, table: int = 1) -> str:
    at = [column for column, _ in COLUMNS].index(name)
    return (
        f"{{VAR :varno {table} :varattno {at + 1} :vartype {kind or COLUMNS[at][1]} :vartypmod -1 :varcollid 0 "
        f":varlevelsup {level} :location -1}}"
    )


def op(oid: int, left: str, right: str, collation: int = 100) -> str:
    result = RESULTS.get(OPERATORS[oid][1], BOOL) if oid in OPERATORS else BOOL
    return f"{{OPEXPR :opno {oid} :opresulttype {result} :inputcollid {collation} :args ({left} {right}) :location -1}}"


def call(oid: int, *args: str, result: int = UUID) -> str:
    listed = f"({' '.join(args)})" if args else "<>"
    return f"{{FUNCEXPR :funcid {oid} :funcresulttype {result} :inputcollid 100 :args {listed} :location -1}}"


def both(word: str, *args: str) -> str:
    return f"{{BOOLEXPR :boolop {word} :args ({' '.join(args)}) :location -1}}"


def relabel(arg: str, target: int) -> str:
    return f"{{RELABELTYPE :arg {arg} :resulttype {target} :resulttypmod -1 :location -1}}"


def io_cast(arg: str, target: int) -> str:
    return f"{{COERCEVIAIO :arg {arg} :resulttype {target} :resultcollid 0 :location -1}}"


def subselect(expression: str, **clauses: str) -> str:
    query = {
        "commandType": "1",
        "canSetTag": "true",
        "hasSubLinks": "false",
        "rtable": "<>",
        "jointree": "{FROMEXPR :fromlist <> :quals <>}",
        "targetList": f"({{TARGETENTRY :expr {expression} :resno 1 :resname x :resjunk false}})",
        "limitCount": "<>",
        "limitOption": "0",
        "stmt_len": "17",
    } | clauses
    fields = " ".join(f":{name} {value}" for name, value in query.items())
    return f"{{SUBLINK :subLinkType 4 :testexpr <> :subselect {{QUERY {fields}}} :location -1}}"


OWN = op(2972, var("owner"), call(UID))
NAMED = op(98, var("name"), text("alpha"))
OK, YES, NO, NULLS = var("ok"), boolean(True), boolean(False), boolean(None)
FORBIDDEN = op(519, var("id"), integer(1))
SUBJECT = Subject("reader", settings={"request.jwt.claim.sub": ONE})
NOBODY = Subject("reader")


def row(**cells: Any) -> list[Any]:
    full = {"id": b"1", "owner": ONE.encode(), "name": b"alpha", "ok": b"t", "code": b"ab  ", "tag": b"x"} | cells
    return [full[name] for name, _ in COLUMNS]
