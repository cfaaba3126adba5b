"""The reader of node trees: real trees of three versions, quoting, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.rls.nodes import Node, TreeError, read

TRUE = (
    "{CONST :consttype 16 :consttypmod -1 :constcollid 0 :constlen 1 :constbyval true :constisnull false "
    ":location 27 :constvalue 1 [ 1 0 0 0 0 0 0 0 ]}"
)

# PostgreSQL 14, 15 and 18: owner = (SELECT auth.uid())
SUBLINKS = [
    "{OPEXPR :opno 2972 :opfuncid 2956 :opresulttype 16 :opretset false :opcollid 0 :inputcollid 0 :args ({VAR "
    ":varno 1 :varattno 2 :vartype 2950 :vartypmod -1 :varcollid 0 :varlevelsup 0 :varnosyn 1 :varattnosyn 2 "
    ":location 29} {SUBLINK :subLinkType 4 :subLinkId 0 :testexpr <> :operName <> :subselect {QUERY :commandType "
    "1 :querySource 0 :canSetTag true :utilityStmt <> :resultRelation 0 :hasAggs false :cteList <> :rtable <> "
    ":jointree {FROMEXPR :fromlist <> :quals <>} :targetList ({TARGETENTRY :expr {FUNCEXPR :funcid 16388 "
    ":funcresulttype 2950 :funcretset false :funcvariadic false :funcformat 0 :funccollid 0 :inputcollid 0 :args "
    "<> :location 45} :resno 1 :resname uid :ressortgroupref 0 :resorigtbl 0 :resorigcol 0 :resjunk false}) "
    ":override 0 :onConflict <> :rowMarks <> :withCheckOptions <> :stmt_location 0 :stmt_len 0} :location 37}) "
    ":location 35}",
    "{OPEXPR :opno 2972 :opfuncid 2956 :opresulttype 16 :opretset false :opcollid 0 :inputcollid 0 :args ({VAR "
    ":varno 1 :varattno 2 :vartype 2950 :vartypmod -1 :varcollid 0 :varlevelsup 0 :varnosyn 1 :varattnosyn 2 "
    ":location 29} {SUBLINK :subLinkType 4 :subLinkId 0 :testexpr <> :operName <> :subselect {QUERY :commandType "
    "1 :querySource 0 :canSetTag true :utilityStmt <> :resultRelation 0 :hasAggs false :cteList <> :rtable <> "
    ":jointree {FROMEXPR :fromlist <> :quals <>} :targetList ({TARGETENTRY :expr {FUNCEXPR :funcid 16388 "
    ":funcresulttype 2950 :funcretset false :funcvariadic false :funcformat 0 :funccollid 0 :inputcollid 0 :args "
    "<> :location 45} :resno 1 :resname uid :ressortgroupref 0 :resorigtbl 0 :resorigcol 0 :resjunk false}) "
    ":override 0 :onConflict <> :rowMarks <> :withCheckOptions <> :mergeActionList <> :mergeUseOuterJoin false "
    ":stmt_location 0 :stmt_len 0} :location 37}) :location 35}",
    "{OPEXPR :opno 2972 :opfuncid 2956 :opresulttype 16 :opretset false :opcollid 0 :inputcollid 0 :args ({VAR "
    ":varno 1 :varattno 2 :vartype 2950 :vartypmod -1 :varcollid 0 :varnullingrels (b) :varlevelsup 0 "
    ":varreturningtype 0 :varnosyn 1 :varattnosyn 2 :location -1} {SUBLINK :subLinkType 4 :subLinkId 0 :testexpr "
    "<> :operName <> :subselect {QUERY :commandType 1 :querySource 0 :canSetTag true :utilityStmt <> "
    ":resultRelation 0 :hasAggs false :hasGroupRTE false :cteList <> :rtable <> :rteperminfos <> :jointree "
    "{FROMEXPR :fromlist <> :quals <>} :targetList ({TARGETENTRY :expr {FUNCEXPR :funcid 16388 :funcresulttype "
    "2950 :funcretset false :funcvariadic false :funcformat 0 :funccollid 0 :inputcollid 0 :args <> :location -1}"
    " :resno 1 :resname uid :ressortgroupref 0 :resorigtbl 0 :resorigcol 0 :resjunk false}) :override 0 "
    ":onConflict <> :returningOldAlias <> :rowMarks <> :withCheckOptions <> :stmt_location -1 :stmt_len -1} "
    ":location -1}) :location -1}",
]


def test_a_constant_has_its_bytes() -> None:
    node = read(TRUE)
    assert node.tag == "CONST"
    assert node.number("consttype") == 16
    assert node.text("constisnull") == "false"
    assert node.fields["constvalue"] == bytes([1, 0, 0, 0, 0, 0, 0, 0])


def test_signed_bytes_and_the_unsigned_ones_of_other_machines_are_the_same() -> None:
    signed = read("{CONST :constvalue 4 [ -118 28 -1 0 ]}")
    unsigned = read("{CONST :constvalue 4 [ 138 28 255 0 ]}")
    assert signed.fields == unsigned.fields == {"constvalue": bytes([138, 28, 255, 0])}


def test_a_null_constant_has_no_bytes() -> None:
    assert read("{CONST :constisnull true :constvalue <>}").fields["constvalue"] is None


@pytest.mark.parametrize("text", SUBLINKS, ids=["14", "15", "18"])
def test_a_tree_of_each_version(text: str) -> None:
    left, right = read(text).nodes("args")
    assert left.number("varattno") == 2
    query = right.node("subselect")
    assert query.node("jointree").fields == {"fromlist": None, "quals": None}
    (target,) = query.nodes("targetList")
    assert target.node("expr").nodes("args") == []
    assert target.text("resname") == "uid"


def test_lists_nest_and_keep_their_words() -> None:
    node = read('{RTE :alias <> :colnames ("id" "a\\ b" "") :cols (b 8 9) :empty () :deep (({A} {B :c d})\n\t(i 1))}')
    assert node.fields["colnames"] == ('"id"', '"a b"', '""')
    assert node.fields["cols"] == ("b", "8", "9")
    assert node.fields["empty"] == ()
    deep = node.fields["deep"]
    assert isinstance(deep, tuple) and isinstance(deep[0], tuple)
    assert [item.tag for item in deep[0] if isinstance(item, Node)] == ["A", "B"]


@pytest.mark.parametrize(
    ("spelled", "word"),
    [
        (r"a\ b", "a b"),
        (r"\{x\}", "{x}"),
        (r"\(\)", "()"),
        (r"back\\slash", "back\\slash"),
        (r"\<>", "<>"),
        (r"\12", "12"),
        ("a\\\nb", "a\nb"),
        (":looks_like_a_field", ":looks_like_a_field"),
        ("[", "["),
        ('""', '""'),
        ("?column?", "?column?"),
        ("größe", "größe"),
    ],
)
def test_words_are_unquoted(spelled: str, word: str) -> None:
    assert read(f"{{TARGETENTRY :resname {spelled} :resno 1}}").fields == {"resname": word, "resno": "1"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "<>",
        "word",
        "(",
        ")",
        "}",
        "{",
        "{}",
        "{A",
        "{A}}",
        "{A} {B}",
        "({A})",
        "{A :b}",
        "{A b c}",
        "{A :b c :b d}",
        "{A :b c d}",
        "{A {B} c}",
        "{A :b (c}",
        "{A :b {C)}",
        "{(A)}",
        "{{A} :b c}",
        "{A :b c\\",
        "{A :b \\}",
        "{CONST :constvalue 4}",
        "{CONST :constvalue 4 [ 1 0 0 ]}",
        "{CONST :constvalue 4 [ 1 0 0 0",
        "{CONST :constvalue 1 [ 256 ]}",
        "{CONST :constvalue 1 [ -129 ]}",
        "{CONST :constvalue 1 [ x ]}",
        "{CONST :constvalue -1 [ ]}",
        "{CONST :constvalue x [ ]}",
        "{CONST :constvalue 1 ( 1 )}",
        "{CONST :constvalue " + "9" * 5000 + " [ 1 ]}",
        "{A :b " * 300 + "c" + "}" * 300,
        "(" * 100_000,
        "{A :b (" * 150 + ")}" * 150,
    ],
)
def test_what_is_no_tree_is_one_error(text: str) -> None:
    with pytest.raises(TreeError):
        read(text)


def test_nesting_within_the_bound_is_fine() -> None:
    assert read("{A :b " * 150 + "c" + "}" * 150).tag == "A"


def test_asking_for_what_is_not_there_is_the_same_error() -> None:
    node = read("{A :word x :number 12 :list (x {B}) :nothing <>}")
    assert node.number("number") == 12
    assert node.nodes("nothing") == []
    for ask in (
        lambda: node.text("nothing"),
        lambda: node.text("absent"),
        lambda: node.number("word"),
        lambda: node.node("number"),
        lambda: node.nodes("list"),
        lambda: node.nodes("word"),
    ):
        with pytest.raises(TreeError):
            ask()


_PIECES = st.sampled_from(
    [
        "{",
        "}",
        "(",
        ")",
        " ",
        "\n",
        "\\",
        "<>",
        ":a ",
        ":constvalue ",
        "CONST ",
        "4 ",
        "[ ",
        "] ",
        "-1 ",
        "x",
        '"',
        "é",
        "٣",
    ]
)


@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
@example("{A :b ٣}")
def test_any_text_is_a_tree_or_the_error(text: str) -> None:
    try:
        tree = read(text)
    except TreeError:
        return
    assert isinstance(tree, Node)


@given(st.sampled_from([TRUE, *SUBLINKS]), st.data())
def test_a_damaged_tree_is_a_tree_or_the_error(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    damaged = text[:start] + data.draw(st.text(max_size=5)) + text[end:]
    try:
        tree = read(damaged)
    except TreeError:
        return
    assert isinstance(tree, Node)
