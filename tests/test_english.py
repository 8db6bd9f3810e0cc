"""Openings of docstrings: verbs for functions, and no question words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(file for top in ("jclip", "conversion", "configs", "benchmarks") for file in (ROOT / top).rglob("*.py"))

_VERB = re.compile(r"[A-Z][a-z]*(-[a-z]+)?s\b|See `")
_FORBIDDEN = re.compile(r"(What|How|Which|Whether|Where|Of|By) ")
_ENTRY = re.compile(r"^ +[\w, *]+: (what|how|which|whether|where) ", re.MULTILINE)


def complaints(source: str) -> Iterator[tuple[int, str]]:
    """Yields (line, first line of a docstring or an entry of its lists) for each wrong opening."""
    for node in ast.walk(ast.parse(source)):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and type(child.value.value) is str:
                text = child.value.value
                is_verb = isinstance(node, ast.FunctionDef) and child is node.body[0] and not _is_property(node)
                if _FORBIDDEN.match(text) or (is_verb and not _VERB.match(text)):
                    yield child.lineno, text.splitlines()[0]
                yield from ((child.lineno, entry[0].strip()) for entry in _ENTRY.finditer(text))


def _is_property(function: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_docstrings_begin_as_they_should():
    found = [
        f"{file.relative_to(ROOT)}:{line}: {words}"
        for file in FILES
        for line, words in complaints(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('def f():\n    """Returns it."""', []),
        ('def f():\n    """See `Tower`."""', []),
        ('@property\ndef f():\n    """Number of rows."""', []),
        ('def f():\n    """The result."""', ["The result."]),
        ('def f():\n    """How it is done."""', ["How it is done."]),
        ('class A:\n    """Which rows count."""', ["Which rows count."]),
        ('x = 1\n"""Of the whole tower."""', ["Of the whole tower."]),
        ('class A:\n    """Rows.\n\n    Attributes:\n      size: how long.\n    """', ["size: how"]),
    ],
)
def test_the_reader_sees_wrong_openings(source, found):
    assert [words for _, words in complaints(source)] == found
