"""The faults: pieces of the code that decides who sees a row, and what stands in their place."""

from __future__ import annotations

from tests.mutants.trial import Fault

__all__ = ["FAULTS", "QUICK"]

_PREDICATE, _COMPILE, _GRANTS = "cdc/predicate.py", "cdc/rls/compile.py", "cdc/rls/grants.py"
_GROUP, _EXPRESSION = "cdc/group.py", "cdc/rls/expression.py"
_FOLLOWED = "tests/integration/test_subjects.py::test_rights_that_are_taken_away_are_followed"

_LOGIC = [
    Fault(
        "OR in two values: NULL OR true is NULL",
        _PREDICATE,
        "    if right in (TRUE, ERROR):\n        return right\n    return NULL if NULL in (left, right) else FALSE",
        "    if NULL in (left, right):\n        return NULL\n    return right if right in (TRUE, ERROR) else FALSE",
        focus="logic",
    ),
    Fault(
        "AND in two values: NULL AND false is NULL",
        _PREDICATE,
        "    if right in (FALSE, ERROR):\n        return right\n    return NULL if NULL in (left, right) else TRUE",
        "    if NULL in (left, right):\n        return NULL\n    return right if right in (FALSE, ERROR) else TRUE",
        focus="logic",
    ),
    Fault("NOT of NULL is true", _PREDICATE, "{TRUE: FALSE, FALSE: TRUE}", "{TRUE: FALSE, FALSE: TRUE, NULL: TRUE}"),
    Fault(
        "an error in OR counts as false",
        _PREDICATE,
        "    if left in (TRUE, ERROR):\n        return left\n    if right in (TRUE, ERROR):",
        "    if left == TRUE:\n        return left\n    if right == TRUE:",
        focus="/",
    ),
    Fault(
        "an error counts as true",
        _EXPRESSION,
        '            moment.problem = str(problem) if isinstance(problem, Told) else f"{where}: {problem}"\n'
        "            return ERROR",
        '            moment.problem = str(problem) if isinstance(problem, Told) else f"{where}: {problem}"\n'
        "            return TRUE",
        focus="/",
    ),
    Fault("what is not known is shown", _PREDICATE, "    if outcome == TRUE:", "    if outcome & TRUE:"),
    Fault(
        "NULL counts as true",
        _EXPRESSION,
        "return FALSE if found is False else NULL if found is None else open_",
        "return FALSE if found is False else TRUE if found is None else open_",
    ),
    Fault(
        "a cell that was not sent counts as NULL",
        "cdc/rls/conditions.py",
        "return null if cell is None else other if type(cell) is bytes else TRUE | FALSE",
        "return other if type(cell) is bytes else null",
        focus="IS NULL",
    ),
    Fault(
        "NULL in the list of IN does not matter",
        _PREDICATE,
        "without = NULL if or_null else FALSE",
        "without = FALSE",
        focus="IN",
    ),
    Fault(
        "IS DISTINCT FROM of NULL and NULL is true",
        "cdc/rls/calls.py",
        "        return first is not second",
        "        return True",
        focus="IS DISTINCT FROM",
    ),
]
_POLICIES = [
    Fault(
        "restrictive policies are ignored",
        _COMPILE,
        "all_of([*restrictive, any_of(permissive[::-1])])",
        "any_of(permissive[::-1])",
    ),
    Fault(
        "restrictive policies count as permissive ones",
        _COMPILE,
        "all_of([*restrictive, any_of(permissive[::-1])])",
        "any_of([*restrictive, *permissive[::-1]])",
    ),
    Fault(
        "permissive policies are evaluated in another order than PostgreSQL's",
        _COMPILE,
        "any_of(permissive[::-1])",
        "any_of(permissive)",
        focus="/",
    ),
    Fault("a policy TO another role applies", _COMPILE, "if policy.applies and policy", "if policy"),
    Fault(
        "a policy that is not supported is forgotten, a restrictive one too",
        _COMPILE,
        'denied = denied if policy.permissive else f"restrictive {unsupported[-1]} is not supported"',
        "denied = denied",
        killer="tests/integration/test_rls_refused.py::test_what_is_not_supported_is_safe",
    ),
    Fault("UPDATE policies let one read", "cdc/fact_query.py", "p.polcmd IN ('*', 'r')", "p.polcmd IN ('*', 'r', 'w')"),
    Fault(
        "a session's error in one policy does not deny the others",
        _COMPILE,
        "reason = compiled.denied or _failed(bound)",
        "reason = compiled.denied",
    ),
]
_RIGHTS = [
    Fault(
        "NOINHERIT is ignored", _GRANTS, "self.members.get(member, ()) if inherits}", "self.members.get(member, ())}"
    ),
    Fault(
        "INHERIT reaches no further than one role",
        _GRANTS,
        "            left += groups - reached\n            reached |= groups",
        "            left = []\n            reached |= groups",
    ),
    Fault(
        "BYPASSRLS is inherited",
        _GRANTS,
        "bypass_rls=role.bypass_rls,",
        "bypass_rls=any(each.bypass_rls for each in roles.by_name.values() if each.oid in reach),",
    ),
    Fault(
        "being a superuser is inherited",
        _GRANTS,
        "superuser=role.superuser,",
        "superuser=any(each.superuser for each in roles.by_name.values() if each.oid in reach),",
    ),
    Fault("FORCE is ignored", "cdc/rls/policy.py", "(self.owns and not self.forced)", "self.owns"),
    Fault(
        "FORCE is the other way round",
        "cdc/rls/policy.py",
        "(self.owns and not self.forced)",
        "(self.owns and self.forced)",
    ),
    Fault("USAGE of the schema is not needed", _COMPILE, "    if not rights.schema_usage:", "    if False:"),
    Fault("SELECT on the key is not needed", _COMPILE, "    for index in relation.key or ():", "    for index in ():"),
    Fault(
        "columns without privilege are shown",
        _COMPILE,
        "return frozenset(column.name for column in relation.columns) - readable",
        "return frozenset(column.name for column in relation.columns) & frozenset() & readable",
    ),
    Fault(
        "EXECUTE is not needed",
        "cdc/rls/functions.py",
        "return made if function.executable else forbidden(function, function.result, compiler)",
        "return made",
    ),
]
_SUBJECT = [
    Fault(
        "rights are never asked for again",
        "cdc/judge.py",
        "        self.book.poll(reached)\n        self._keep_all()\n",
        "",
        killer=_FOLLOWED,
    ),
    Fault(
        "the claims of the first subject are everybody's",
        "cdc/rls/calls.py",
        "    if session:\n        return bind\n    made: list[Term] = []",
        "    made: list[Term] = []",
    ),
    Fault(
        "equal conditions have one key, whatever the value",
        _PREDICATE,
        '("equal", probe, value)',
        '("equal", probe)',
        level="streams",
        focus="auth.uid()",
    ),
    Fault(
        "the subject's time zone is ignored",
        _COMPILE,
        'subject.setting("timezone") or rights.zone',
        "rights.zone",
        focus="extract",
    ),
    Fault(
        "a setting that is not declared is NULL",
        "cdc/rls/session.py",
        "if declared is None and not missing_ok:",
        "if False:",
        focus="current_setting",
    ),
]
_INDEX = [
    Fault(
        "the cover of OR is that of its left side",
        _PREDICATE,
        "    return left | right\n\n\ndef _and",
        "    return left\n\n\ndef _and",
    ),
    Fault(
        "the cover of @> is any element that is not there",
        "cdc/rls/covers.py",
        "return elements[:1] or None",
        "return elements[:1]",
        focus="@>",
    ),
    Fault(
        "a condition IS NOT TRUE has a cover",
        "cdc/rls/conditions.py",
        "inner.cover if table is _IS_TRUE else None",
        "inner.cover",
        focus="IS NOT TRUE",
    ),
]
_VIEWS = [
    Fault(
        "the old row is not judged",
        _GROUP,
        "        if is_ == TRUE:\n            if was == TRUE:",
        "        if is_ == TRUE:\n            if True:",
        level="streams",
    ),
    Fault(
        "a row that leaves shows its new values",
        _GROUP,
        "sight.of(before), None, _LEAVE",
        "sight.of(before), sight.of(new), _LEAVE",
        level="streams",
    ),
    Fault(
        "a row that enters shows its old values",
        _GROUP,
        "event.seen_as(sight.shown, None, sight.of(new), _ENTER)",
        "event.seen_as(sight.shown, sight.of(event._old), sight.of(new), _ENTER)",
        level="streams",
    ),
    Fault(
        "a deleted row is not judged",
        _GROUP,
        "        if outcome != TRUE:\n            if outcome & TRUE:",
        "        if outcome != TRUE and not isinstance(event, Delete):\n            if outcome & TRUE:",
        level="streams",
    ),
    Fault(
        "hidden columns are in the rows",
        _GROUP,
        "if row is None or shown is self.relation:",
        "if True:",
        level="streams",
    ),
    Fault(
        "now() stands still",
        _GROUP,
        "if predicate.timed and sight.moment is not None:",
        "if False:",
        level="streams",
        focus="now()",
    ),
    Fault(
        "the filter is forgotten beside policies",
        "cdc/judge.py",
        "return (every(predicates) if predicates else None), decision",
        "return (every(predicates[-1:]) if predicates else None), decision",
        level="streams",
    ),
]
_VALUES = [
    Fault(
        "trailing blanks of char(n) count",
        "cdc/values/texts.py",
        'return cell.rstrip(b" ")',
        "return cell",
        focus="char(n)",
    ),
    Fault(
        "numeric 1.0 and 1.00 differ",
        "cdc/values/numbers.py",
        "return _NAN if value.is_nan() else value",
        "return _NAN if value.is_nan() else str(value)",
        focus="=",
    ),
    Fault(
        "a backslash in LIKE is a character",
        "cdc/operators/likes.py",
        '        if character == "\\\\":\n            character = next',
        '        if character == "\\x00":\n            character = next',
        focus="LIKE",
    ),
    Fault(
        "_ in LIKE is no character of its own",
        "cdc/operators/likes.py",
        'pieces[-1] += "." if character == "_" else re.escape(character)',
        "pieces[-1] += re.escape(character)",
        focus="LIKE",
    ),
    Fault(
        "division by zero gives 0",
        "cdc/operators/integers.py",
        '        raise Failed("division by zero")\n    size',
        "        return 0\n    size",
        focus="/",
    ),
    Fault(
        "division rounds down",
        "cdc/operators/integers.py",
        "return size if (left < 0) == (right < 0) else -size",
        "return left // right",
        focus="/",
    ),
    Fault(
        "integers do not overflow",
        "cdc/operators/integers.py",
        '        raise Failed(f"{NAMES[size]} out of range")\n    return value',
        "        return value\n    return value",
        focus="*",
    ),
    Fault(
        "enums are ordered by name",
        "cdc/operators/enums.py",
        "Label(place, text) for place, text in enumerate(labels)",
        "Label(place, text) for place, text in enumerate(sorted(labels))",
        focus="enum order",
    ),
    Fault(
        "CASE goes on behind a condition that is NULL, as if true",
        "cdc/rls/branches.py",
        "            if outcome == TRUE:\n                return result(cells)",
        "            if outcome in (TRUE, 4):\n                return result(cells)",
        focus="CASE",
    ),
    Fault(
        "letters have another case under C only",
        "cdc/rls/compiler.py",
        "        return Collation.LINGUISTIC\n",
        "        return Collation.CODE_POINT\n",
        focus="upper",
    ),
]

FAULTS = [*_LOGIC, *_POLICIES, *_RIGHTS, *_SUBJECT, *_INDEX, *_VIEWS, *_VALUES]
QUICK = ("NOT of NULL is true", "restrictive policies are ignored", "columns without privilege are shown")
"""Those that are found after few verdicts: a part of `make test`."""
