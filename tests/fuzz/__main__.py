"""Fuzzes the targets with atheris, one after the other: `python -m tests.fuzz [SECONDS]`, or TARGET SECONDS for one.

An input that raises anything except JclipError, hangs, or takes too much memory is kept in the folder .fuzz, and the
exit code is 1. `python -m tests.fuzz TARGET FILE` reads it again, without atheris.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEPT = Path(__file__).parent.parent.parent / ".fuzz"
DEFAULT = 240
"""Seconds of all targets together."""
_LONGEST, _LARGEST = 20, 4096
"""Seconds and MiB of one input."""


def main(arguments: list[str]) -> int:
    """Fuzzes one target, or all in processes of their own; returns the exit code."""
    if len(arguments) == 2:
        name, how = arguments
        return fuzz(name, int(how)) if how.isdigit() else read_again(name, Path(how))
    from tests.fuzz.targets import TARGETS

    seconds = max(1, int(arguments[0] if arguments else DEFAULT) // len(TARGETS))
    failed = [name for name in TARGETS if not _passes(name, seconds)]
    if failed:
        print(f"fuzzing found errors in {', '.join(failed)}: python -m tests.fuzz TARGET FILE repeats one")
    return bool(failed)


def _passes(name: str, seconds: int) -> bool:
    """Fuzzes a target in a process of its own, and prints a line; prints all of its output if it fails."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    runs = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    number = f"{int(runs[1]):,} inputs" if runs else "no inputs"
    passed = done.returncode == 0 and runs is not None
    print(f"fuzz {name}: {number} in {time.monotonic() - start:.0f} s, {'passed' if passed else 'FAILED'}", flush=True)
    if not passed:
        print(done.stdout[-8000:], flush=True)
    return passed


def fuzz(name: str, seconds: int) -> int:
    """Fuzzes a target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["jclip"]), tempfile.TemporaryDirectory() as scratch:
        from tests.fuzz.targets import TARGETS

        folder = Path(scratch)
        ready = TARGETS[name](folder)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(ready.seeds):
            (corpus / f"{number}").write_bytes(seed)
        KEPT.mkdir(exist_ok=True)
        limits = (f"-max_total_time={seconds}", f"-timeout={_LONGEST}", f"-rss_limit_mb={_LARGEST}", "-max_len=65536")
        output = (f"-artifact_prefix={KEPT}/{name}-", "-print_final_stats=1", "-verbosity=0")
        atheris.Setup([sys.argv[0], *limits, *output, str(corpus)], ready.guarded)
        atheris.Fuzz()
    return 0


def read_again(name: str, file: Path) -> int:
    """Reads one input."""
    from tests.fuzz.targets import TARGETS

    with tempfile.TemporaryDirectory() as scratch:
        TARGETS[name](Path(scratch)).guarded(file.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
