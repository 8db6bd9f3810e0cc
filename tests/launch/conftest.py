"""A folder with stand-ins for the clusters' tools, first on PATH, and a way to run launchers there."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STANDINS = Path(__file__).parent / "standins"
# What the launchers need of the system, for tests of a machine that has nothing else.
SYSTEM = ("bash", "basename", "dirname", "env", "sed")


class Machine:
    """Machine with the stand-ins installed.

    Attributes:
      state: where the stand-ins keep what they know.
      environment: of the launchers; tests may add to it.
    """

    def __init__(self, folder: Path):
        self.state = folder / "state"
        self.state.mkdir()
        self._bin = folder / "bin"
        self._bin.mkdir()
        for standin in STANDINS.glob("*.py"):
            tool = self._bin / standin.stem
            # -S makes each start three times as fast, and there are many; only kubectl needs a package (yaml).
            flags = "" if standin.stem == "kubectl" else "-S -E "
            tool.write_text(f'#!/bin/sh\nexec {sys.executable} {flags}{standin} "$@"\n')
            tool.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("JCLIP_", "SLURM_", "CUDA_"))},
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "STANDIN_STATE": str(self.state),
            "JCLIP_POLL_SECONDS": "0.1",
            "COLUMNS": "200",
        }

    def without_tools(self) -> None:
        """Leaves only what every system has on PATH."""
        shutil.rmtree(self._bin)
        self._bin.mkdir()
        for tool in SYSTEM:
            (self._bin / tool).symlink_to(shutil.which(tool))
        self.environment["PATH"] = str(self._bin)

    def start(self, script: str, *arguments: str) -> subprocess.Popen:
        """Starts a launcher from the top of the tree, as the README says."""
        # A launcher inherits signals that nohup or a background job makes pytest ignore, and bash cannot trap those.
        for asked in (signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(asked) is signal.SIG_IGN:
                signal.signal(asked, signal.SIG_DFL)
        return subprocess.Popen(
            [str(ROOT / "launch" / script), *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Runs a launcher to its end, checks its exit code, and returns its standard output and standard error."""
        launcher = self.start(script, *arguments)
        out, err = launcher.communicate(timeout=1800)
        assert launcher.returncode == code, f"exit code {launcher.returncode}\n{out}\n{err}"
        return out, err

    def calls(self, tool: str) -> list[dict]:
        """Calls of a tool, in order."""
        file = self.state / "calls.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if call["tool"] == tool]

    def script(self, *codes: str) -> None:
        """Makes `jclip` end with these codes, one after the other, instead of training."""
        self.environment["STANDIN_CODES"] = ",".join(codes)

    def preempt(self, workdir: Path) -> None:
        """Orders one preemption in the middle of the run in `workdir`."""
        (self.state / "preempt-at").write_text(str(workdir / "metrics.jsonl"))


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)
