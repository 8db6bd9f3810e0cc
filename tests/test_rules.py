import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.rules import RuleError, inside, match, paths_of, rows, tree_from_paths

PATHS = ["image/kernel", "image/bias", "text/layers/kernel", "text/layers/bias", "logit_scale"]


def test_the_first_rule_that_matches_wins():
    verdict = match([("image/bias", 1), ("image/.*", 2), (".*", 3)], PATHS, what="rates")
    assert verdict == dict(zip(PATHS, [2, 1, 3, 3, 3], strict=True))
    assert list(verdict) == PATHS


def test_a_rule_must_match_the_whole_path():
    with pytest.raises(RuleError, match="rates: rule 'image' matches no parameter"):
        match([("image", 1), (".*", 2)], PATHS, what="rates")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [("imgae/.*", 1), (".*", 2)],
            r"decays: rule 'imgae/\.\*' matches no parameter: the closest is 'image/kernel'",
        ),
        ([(r".*/biass", 1), (".*", 2)], r"rule '\.\*/biass' matches no parameter: the closest is 'image/bias'"),
        ([("text/layer/.*", 1), (".*", 2)], "the closest is 'text/layers/kernel'"),
        ([("logit_scael", 1), (".*", 2)], "the closest is 'logit_scale'"),
        (
            [("image/.*", 1), ("text/.*", 2)],
            r"decays: no rule matches 'logit_scale': end the rules .*'\.\*'",
        ),
        ([("image/.*", 1)], r"no rule matches 'text/layers/kernel' \(and 2 more\)"),
        ([(".*", 1), ("image/.*", 2)], r"rule 'image/\.\*' matches nothing, because '\.\*' above it took its paths"),
        (
            [(".*/kernel", 1), (".*/bias", 1), ("image/.*", 2), (".*", 3)],
            r"'image/\.\*' matches nothing, because '\.\*/kernel' and '\.\*/bias' above it took its paths",
        ),
        ([("image/(", 1)], r"rule 'image/\(' is not a regular expression: .*"),
        ([], "no rule matches 'image/kernel'"),
    ],
)
def test_errors_name_the_rule_or_the_path(rules, message):
    with pytest.raises(RuleError, match=message) as caught:
        match(rules, PATHS, what="decays")
    assert isinstance(caught.value, JclipError)
    assert "\n" not in str(caught.value)


def test_a_rule_over_no_paths_at_all():
    assert match([], [], what="decays") == {}
    with pytest.raises(RuleError, match=r"rule '\.\*' matches no parameter$"):
        match([(".*", 1)], [], what="decays")


def test_paths_by_hand():
    tree = {"a": {"b": {"c": 1, "d": None}, "empty": {}}, "e": 2}
    assert paths_of(tree) == {"a/b/c": 1, "a/b/d": None, "e": 2}
    assert tree_from_paths({"a/b/c": 1, "e": 2, "a/d": 3}) == {"a": {"b": {"c": 1}, "d": 3}, "e": 2}


@pytest.mark.parametrize("leaves", [{"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}])
def test_a_path_is_a_leaf_or_a_branch(leaves):
    with pytest.raises(ValueError, match="leaf"):
        tree_from_paths(leaves)


names = st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1, max_size=3)
nodes = st.recursive(st.integers(), lambda node: st.dictionaries(names, node, min_size=1), max_leaves=8)


@given(st.dictionaries(names, nodes))
def test_trees_and_paths_are_inverse(tree):
    assert tree_from_paths(paths_of(tree)) == tree


def test_rows_fold_equal_verdicts():
    leaves = {path: np.zeros(shape) for path, shape in zip(PATHS, [(2, 3), (3,), (4, 5), (5,), ()], strict=True)}
    frozen = match([("image/.*", False), (".*", True)], PATHS, what="trains")
    assert rows(frozen, leaves) == [("image/*", 9, False), ("text/*", 25, True), ("logit_scale", 1, True)]
    biases = match([("text/.*/bias", True), (".*", False)], PATHS, what="trains")
    assert rows(biases, leaves) == [
        ("image/*", 9, False),
        ("text/layers/kernel", 20, False),
        ("text/layers/bias", 5, True),
        ("logit_scale", 1, False),
    ]


def test_rules_inside_a_branch():
    inner = inside("text", (("bias|norm/.*", 1), (".*", 2)))
    verdict = match((*inner, (".*", 3)), ["text/bias", "text/norm/bias", "text/kernel", "norm/bias"], what="x")
    assert list(verdict.values()) == [1, 1, 2, 3]
