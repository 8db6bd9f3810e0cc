"""Tests with the accelerators' real compilers. Without these they are not collected: `make test-accelerators`."""

from importlib.util import find_spec

import pytest

from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.targets import TARGETS, parse_place

_INSTALLED = all(find_spec(module) for target in TARGETS.values() for module in target.arrangement.modules)
collect_ignore_glob = [] if _INSTALLED else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _own_results(tmp_path_factory):
    """Keeps results in a cache of the session's own, so that its tests compile."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("JCLIP_CACHE", str(tmp_path_factory.mktemp("results")))
        yield


@pytest.fixture(scope="session")
def processes(_own_results):
    """Returns a function: name of a place -> its compiler's process, which lives as long as the worker's tests."""
    running = {}

    def process(name):
        if name not in running:
            running[name] = CompilerProcess(parse_place(name), seconds=300)
        return running[name]

    yield process
    for each in running.values():
        each.close()
