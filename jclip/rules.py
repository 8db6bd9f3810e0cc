"""Rules over parameters: ordered lists of (path regex, value).

Freezing, weight decay, learning-rate multipliers, sharding and partial loading all use them. A regex must match a whole
path, such as "text/layers/attention/query/kernel", and the first match decides. A path without a rule is an error, and
so is a rule without a path.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from jclip.errors import JclipError

T = TypeVar("T")


class RuleError(JclipError):
    """Error for a rule that matches no parameter, or a parameter that no rule matches."""


def match(rules: Sequence[tuple[str, T]], paths: Iterable[str], *, what: str) -> dict[str, T]:
    """Returns {path: value of the first rule whose regex matches the whole path}, in the order of the paths.

    >>> match(((".*/bias", False), (".*", True)), ["text/bias", "text/kernel"], what="decays")
    {'text/bias': False, 'text/kernel': True}

    The message of an error begins with `what`, the name of the rules.

    Raises:
      RuleError: a path has no rule, a rule has no path (it is misspelt, or the rules above it match all its paths), or
        a regex is not valid.
    """
    paths = list(paths)
    patterns = [_compile(regex, what) for regex, _ in rules]
    taken_by: dict[str, int] = {}
    for path in paths:
        first = next((i for i, pattern in enumerate(patterns) if pattern.fullmatch(path)), None)
        if first is not None:
            taken_by[path] = first
    # Unused rules are reported first, because a misspelt one is often why a path has no rule.
    used = set(taken_by.values())
    for i, (regex, _) in enumerate(rules):
        if i not in used:
            raise RuleError(_why_unused(patterns, i, regex, paths, taken_by, what))
    without = [path for path in paths if path not in taken_by]
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        raise RuleError(f"{what}: no rule matches {without[0]!r}{more}: end the rules with one for '.*'")
    return {path: rules[i][1] for path, i in taken_by.items()}


def inside(branch: str, rules: Iterable[tuple[str, T]]) -> tuple[tuple[str, T], ...]:
    """Returns rules for the paths inside a branch as rules for whole paths.

    >>> inside("text", ((".*", True),))
    (('text/.*', True),)
    """
    return tuple((f"{branch}/{f'({regex})' if '|' in regex else regex}", value) for regex, value in rules)


def paths_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {'a/b/c': leaf} of nested dicts, in order. Everything except a mapping is a leaf.

    >>> paths_of({"text": {"bias": 0, "norm": {"scale": 1}}})
    {'text/bias': 0, 'text/norm/scale': 1}
    """
    leaves: dict[str, Any] = {}
    for name, node in tree.items():
        if isinstance(node, Mapping):
            leaves.update({f"{name}/{path}": leaf for path, leaf in paths_of(node).items()})
        else:
            leaves[name] = node
    return leaves


def tree_from_paths(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dicts from {'a/b/c': leaf}; the inverse of `paths_of`.

    Raises:
      ValueError: a path is both a leaf and a branch.
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *branches, name = path.split("/")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path!r} goes through {branch!r}, which is a leaf")
        if name in node:
            raise ValueError(f"{path!r} is repeated, or is both a branch and a leaf")
        node[name] = leaf
    return tree


def rows(verdict: Mapping[str, T], leaves: Mapping[str, Any]) -> list[tuple[str, int, T]]:
    """Returns the result of `match` as rows to print: (path group, number of parameters, value).

    A branch whose parameters all have one value is one row, such as "image/*" for a frozen tower.

    Args:
      verdict: {path: value}, the result of `match`.
      leaves: {path: array or shape}, for the numbers of parameters; a leaf without `shape` counts as 1.
    """
    counts = {path: math.prod(getattr(leaves[path], "shape", ())) for path in verdict}
    return _fold(tree_from_paths(verdict), tree_from_paths(counts), "")


def _fold(values: dict[str, Any], counts: dict[str, Any], prefix: str) -> list[tuple[str, int, Any]]:
    folded = []
    for name, value in values.items():
        path = prefix + name
        if not isinstance(value, dict):
            folded.append((path, counts[name], value))
            continue
        inner = _fold(value, counts[name], path + "/")
        if all(row[2] == inner[0][2] for row in inner):
            inner = [(path + "/*", sum(row[1] for row in inner), inner[0][2])]
        folded.extend(inner)
    return folded


def _compile(regex: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise RuleError(f"{what}: rule {regex!r} is not a regular expression: {error}") from None


def _why_unused(
    patterns: list[re.Pattern[str]], i: int, regex: str, paths: list[str], taken_by: dict[str, int], what: str
) -> str:
    shadows = sorted({taken_by[path] for path in paths if patterns[i].fullmatch(path)})
    if shadows:
        names = " and ".join(repr(patterns[j].pattern) for j in shadows)
        return f"{what}: rule {regex!r} matches nothing, because {names} above it took its paths: move it up or drop it"
    closest = _closest(regex, paths)
    return f"{what}: rule {regex!r} matches no parameter" + (f": the closest is {closest!r}" if closest else "")


def _closest(regex: str, paths: list[str]) -> str | None:
    """Returns the path most similar to a misspelt regex without its operators; None without paths."""
    wanted = re.sub(r"\.[*+]|[\\()|?^$\[\]{}]", "", regex).strip("/")

    def likeness(path: str) -> float:
        # "imgae/.*" is the beginning of a path, ".*/biass" the end, so all windows of its number of words are compared.
        words, size = path.split("/"), wanted.count("/") + 1
        windows = ["/".join(words[k : k + size]) for k in range(max(1, len(words) - size + 1))]
        return max(difflib.SequenceMatcher(None, wanted, window).ratio() for window in windows)

    return max(paths, key=likeness, default=None)
