"""Tests with the accelerators' real compilers. Without these they are not collected: `make test-accelerators`."""

import os
from importlib.util import find_spec

import pytest

from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.targets import TARGETS, parse_place

_INSTALLED = all(find_spec(module) for target in TARGETS.values() for module in target.arrangement.modules)
collect_ignore_glob = [] if _INSTALLED else ["test_*.py"]


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    """Returns a function: name of a place -> its compiler's process, which lives as long as the tests.

    Results are kept in a cache of the tests' own, so that these compile.
    """
    running = {}
    before = os.environ["JCLIP_CACHE"]
    os.environ["JCLIP_CACHE"] = str(tmp_path_factory.mktemp("results"))

    def process(name):
        if name not in running:
            running[name] = CompilerProcess(parse_place(name), seconds=300)
        return running[name]

    yield process
    for each in running.values():
        each.close()
    os.environ["JCLIP_CACHE"] = before
