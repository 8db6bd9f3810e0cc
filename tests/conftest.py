"""Every test sees 8 CPU devices, and no test may be skipped: what cannot run here is not tested here."""

import os

# Both are read when jax is first imported, which is why they stand above every other import.
os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling is most of what tests wait for, so LLVM optimises nothing, unless XLA_FLAGS says so: of two levels the last
# one counts.
os.environ["XLA_FLAGS"] = " ".join(
    ("--xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8")
)
# Many tests compile the same steps: once is enough.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for the network is a mistake, and says so at once
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or it warns whenever a test starts a process

import hypothesis
import pytest

from jclip.conversion.parity import peers

peers.make_importable()

# Compiling takes longer than any deadline; the same examples every time, so that a red run can be repeated.
hypothesis.settings.register_profile("jclip", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("jclip")

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
