"""Examples in docstrings, of every module that has one."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("jclip", "jclip/configs", "jclip/conversion", "docs", "benchmarks")  # rglob follows no links
NAMES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    found = doctest.testmod(import_module(name))
    assert found.attempted and not found.failed
