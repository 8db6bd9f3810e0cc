"""The one matcher: an ordered list of (regex -> value) over parameter paths.

Freezing, decay, learning-rate multipliers, sharding and partial loading are all such lists. A regex must match a whole
path ("text/layers/attention/query/kernel"), the first that does decides, and nothing is left to luck: a path that no
rule takes and a rule that takes no path are both errors.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from jclip.errors import JclipError

T = TypeVar("T")


class RuleError(JclipError):
    """A rule that takes no parameter, or a parameter that no rule takes."""


def match(rules: Sequence[tuple[str, T]], paths: Iterable[str], *, what: str) -> dict[str, T]:
    """Gives every path the value of the first rule whose regex matches all of it.

    Args:
      rules: ordered (regex, value).
      paths: '/'-joined paths, as `paths_of` names them.
      what: what the rules decide, for messages: "decays", "stage 'warmup': trains".

    Returns:
      {path: value}, in the order of the paths.

    Raises:
      RuleError: a path without a rule, a rule without a path (misspelt, or shadowed by the rules above it), or a regex
        that cannot be compiled.
    """
    paths = list(paths)
    patterns = [_compile(regex, what) for regex, _ in rules]
    taken_by: dict[str, int] = {}
    for path in paths:
        first = next((i for i, pattern in enumerate(patterns) if pattern.fullmatch(path)), None)
        if first is not None:
            taken_by[path] = first
    # A misspelt rule is often the reason for a path without one, so it is told first.
    used = set(taken_by.values())
    for i, (regex, _) in enumerate(rules):
        if i not in used:
            raise RuleError(_why_unused(patterns, i, regex, paths, taken_by, what))
    without = [path for path in paths if path not in taken_by]
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        raise RuleError(f"{what}: no rule matches {without[0]!r}{more}: end the rules with one for '.*'")
    return {path: rules[i][1] for path, i in taken_by.items()}


def paths_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """{'a/b/c': leaf} of nested dicts, in their order. Whatever is no mapping is a leaf; empty mappings vanish."""
    leaves: dict[str, Any] = {}
    for name, node in tree.items():
        if isinstance(node, Mapping):
            leaves.update({f"{name}/{path}": leaf for path, leaf in paths_of(node).items()})
        else:
            leaves[name] = node
    return leaves


def tree_from_paths(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from {'a/b/c': leaf}: undoes `paths_of`.

    Raises:
      ValueError: one path is both a leaf and a branch.
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
            raise ValueError(f"{path!r} is there twice, or is a branch as well as a leaf")
        node[name] = leaf
    return tree


def rows(verdict: Mapping[str, T], leaves: Mapping[str, Any]) -> list[tuple[str, int, T]]:
    """What `match` decided, as rows to print: (path group, number of parameters, value).

    Neighbours of equal value are folded into their common branch as long as the branch holds no other value, so that a
    frozen tower is one row ("image/*") and an exception inside it makes only its own surroundings unfold.

    Args:
      verdict: {path: value} from `match`.
      leaves: {path: array or shape}, of which the scalars are counted; None or another thing without `shape` counts 1.
    """
    return _fold(tree_from_paths(verdict), tree_from_paths({path: _count(leaves[path]) for path in verdict}), "")


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


def _count(leaf: Any) -> int:
    return math.prod(getattr(leaf, "shape", ()))


def _compile(regex: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise RuleError(f"{what}: rule {regex!r} is no regular expression: {error}") from None


def _why_unused(
    patterns: list[re.Pattern[str]], i: int, regex: str, paths: list[str], taken_by: dict[str, int], what: str
) -> str:
    shadows = sorted({taken_by[path] for path in paths if patterns[i].fullmatch(path)})
    if shadows:
        names = " and ".join(repr(patterns[j].pattern) for j in shadows)
        return f"{what}: rule {regex!r} takes nothing, because {names} above it took its paths: move it up or drop it"
    closest = _closest(regex, paths)
    return f"{what}: rule {regex!r} matches no parameter" + (f": the closest is {closest!r}" if closest else "")


def _closest(regex: str, paths: list[str]) -> str | None:
    """The path most like a misspelt regex, read with its operators blanked out; None when there are no paths."""
    wanted = re.sub(r"\.[*+]|[\\()|?^$\[\]{}]", "", regex).strip("/")

    def likeness(path: str) -> float:
        # "imgae/.*" means a beginning, ".*/biass" an end: compare it with as many of the path's words as it has.
        words, size = path.split("/"), wanted.count("/") + 1
        windows = ["/".join(words[k : k + size]) for k in range(max(1, len(words) - size + 1))]
        return max(difflib.SequenceMatcher(None, wanted, window).ratio() for window in windows)

    return max(paths, key=likeness, default=None)
