"""Rules of printing that hold in all of the source: one console, one way to print, UTF-8 in every file."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(file for folder in ("jclip", "conversion", "configs") for file in (ROOT / folder).rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in SOURCES}
PRINTING = {"jclip/plain.py", "jclip/console.py", "jclip/export/stablehlo/run.py"}  # the last runs without jclip


def places(wrong):
    """Returns FILE:LINE of every node of the source for which `wrong` is true."""
    return [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if str(file.relative_to(ROOT)) not in PRINTING and wrong(node)
    ]


@cache
def called(node):
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def test_nothing_prints_past_plain_and_console():
    assert not places(lambda node: re.fullmatch(r"print|sys\.std(out|err)\.write", called(node)))


def test_neither_consoles_nor_markup_of_rich_are_used():
    def wrong(node):
        if isinstance(node, ast.ImportFrom):
            return node.module == "rich.console" or node.module == "rich.markup" or node.module == "html"
        markup = called(node).endswith("from_markup") or called(node).endswith("TextColumn")
        return markup and not any(word.arg == "markup" for word in node.keywords)

    assert not places(wrong)


def test_an_error_is_one_line():
    def wrong(node):
        return re.fullmatch(r"JclipError|Unfinished|RuleError", called(node)) and any(
            isinstance(each, ast.Constant) and isinstance(each.value, str) and "\n" in each.value
            for each in ast.walk(node)
        )

    assert not places(wrong)


def test_the_output_of_programs_is_read_as_utf8():
    """For files, ruff checks the encoding (PLW1514)."""

    def wrong(node):
        words = {word.arg for word in node.keywords} if called(node).startswith("subprocess.") else set()
        return words & {"text", "universal_newlines"} and "encoding" not in words

    assert not places(wrong)


def test_no_message_quotes_a_method():
    """Finds `self.NAME` in messages where NAME is a method of the class."""
    found = []
    for file, tree in TREES.items():
        for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            methods = {
                each.name
                for each in kind.body
                if isinstance(each, ast.FunctionDef)
                and not any("property" in ast.unparse(mark) for mark in each.decorator_list)
            }
            for node in ast.walk(kind):
                value = getattr(node, "value", None)
                if not isinstance(node, ast.FormattedValue) or not isinstance(value, ast.Attribute):
                    continue
                if value.attr in methods and ast.unparse(value.value) == "self":
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not found


@pytest.mark.parametrize("rule", ["PLW1514"])
def test_ruff_looks_after_encodings(rule):
    assert f'"{rule}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
