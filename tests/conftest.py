"""Every test sees 8 simulated devices, and none may be skipped: all of them can run anywhere.

Fewer devices would not be cheaper: compiling a training step takes the same time for 2 and for 8 (measured).
"""

import fcntl
import gc
import os
from importlib.metadata import version

# Read when jax is first imported, which is why they come before every other import.
os.environ["JAX_PLATFORMS"] = "cpu"
# Tests mostly compile: without LLVM's optimisations and XLA's fusion emitters a training step compiles in a third of
# the time. XLA_FLAGS may say otherwise: the last of two equal flags counts. The second flag is only for jax 0.10: XLA
# aborts on an unknown flag, as 0.12.0.1 on this one.
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
    )
)
# Many tests compile the same steps.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["JCLIP_CACHE"] = os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "jclip")
os.environ["HF_HUB_OFFLINE"] = "1"  # an attempt to reach the network fails at once
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # otherwise it warns whenever a test starts a process

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from jclip.conversion.parity import peers
from jclip.conversion.parity.memory import release
from tests import servers

peers.make_importable()

# No deadline, because tests compile. The same examples every time, so that a failure can be repeated.
hypothesis.settings.register_profile("jclip", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("jclip")


@pytest.fixture(scope="module", autouse=True)
def _few_objects_to_collect() -> None:
    """Hides the objects of earlier modules and imports from the garbage collector, which would take seconds for them.

    It runs whenever a checkpoint cannot be read, for example.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Returns a function (name, make) -> folder that `make` fills once in a session, for all of its workers.

    The folder is shared: tests only read it.
    """
    root = _session_folder(tmp_path_factory)

    def shared(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return shared


@pytest.fixture
def much_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Holds back other tests that need up to ten gigabytes until this one has given its memory back."""
    with (_session_folder(tmp_path_factory) / "much_memory.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        jax.clear_caches()
        release()


def _session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the temporary folder of a session, for all of its workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """Yields a PostgreSQL with pgvector. A test uses a table or a database of its own."""
    with servers.postgres() as server:
        yield server


_skipped: list[str] = []


def _note_skip(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


pytest_runtest_logreport = _note_skip
pytest_collectreport = _note_skip


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in _skipped:
        terminalreporter.write_line(f"skipped, and no test may be: {name}", red=True)
