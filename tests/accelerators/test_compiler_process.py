"""The compiler's process: answers, and every way in which it may end. The processes are fake, see fake_worker.py."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from jclip.accelerators import compiler_process
from jclip.accelerators.compiler import CompilerFailed
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.limited_process import resident
from jclip.accelerators.targets import parse_place
from jclip.accelerators.worker import PROGRESS, RESULT
from jclip.errors import JclipError
from jclip.outside import import_file

FAKE = Path(__file__).parent / "fake_worker.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Pretends that the compilers are installed."""
    monkeypatch.setattr(compiler_process, "check_installed", lambda modules: None)


def fake(how, *notes, **more):
    command = (sys.executable, str(FAKE), how, *map(str, notes))
    return CompilerProcess(parse_place("v5e:2x2"), command=command, **more)


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def test_an_answer_and_its_progress():
    said = []
    with fake("answer", progress=said.append) as process:
        assert process.call(max, 1, "two") == ["v5e:2x2", 1, "two"]
    assert said == ["working"]


def test_what_the_function_raises_is_raised_here():
    with fake("refuse") as process, pytest.raises(JclipError, match="use 4 or 8") as caught:
        process.call(max)
    assert type(caught.value) is JclipError
    with fake("fail") as process, pytest.raises(CompilerFailed, match="refuses the program: INVALID_ARGUMENT: no"):
        process.call(max)
    with fake("bug") as process, pytest.raises(RuntimeError, match="v5e:2x2:\nTraceback(.|\n)*ZeroDivisionError"):
        process.call(max)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("crash", r"v5e:2x2: the compiler's process failed: it was ended by SIGABRT: Check failed: z == 1 \(8 vs. 1\)"),
        ("exit", "failed: it ended with exit code 3: cannot open shared object file"),
        ("half", "failed: it ended with exit code 0"),
        ("killed", "failed: it was ended by SIGKILL, as systems do when memory runs out$"),
    ],
)
def test_a_process_that_ends_is_one_line(how, message, capfd):
    with fake(how) as process, pytest.raises(CompilerFailed, match=message) as caught:
        process.call(max)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_command_that_does_not_exist():
    process = CompilerProcess(parse_place("v5e:2x2"), command=("/nowhere/python",))
    with pytest.raises(CompilerFailed, match="v5e:2x2: the compiler's process failed: it cannot start: No such file"):
        process.call(max)


def test_after_a_crash_the_next_call_has_a_new_process(tmp_path):
    with fake("twice", tmp_path / "first") as process:
        with pytest.raises(CompilerFailed, match="SIGABRT"):
            process.call(max)
        assert process.call(max) == "second"


def test_a_time_limit_ends_all_processes(tmp_path):
    with fake("hang", tmp_path / "pids", seconds=8, more_time="allow more") as process:
        with pytest.raises(CompilerFailed, match="it took longer than 8 s: allow more$"):
            process.call(max)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 and wait_for(lambda: not any(map(is_alive, pids)))


def test_a_memory_limit_ends_the_process():
    limit = "it needs more than 150 MiB of this machine's memory"
    with fake("grow", memory=150 << 20) as process, pytest.raises(CompilerFailed, match=limit):
        process.call(max)


def test_memory_counts_descendants():
    code = "import subprocess, sys; b = b'x' * (64 << 20); subprocess.run([sys.executable, '-c', %r])"
    child = subprocess.Popen([sys.executable, "-c", code % "b = b'x' * (64 << 20); import time; time.sleep(60)"])
    try:
        assert wait_for(lambda: resident(child.pid) > 128 << 20)
        assert resident(child.pid) < 256 << 20
    finally:
        for file in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
            os.kill(int(file), signal.SIGKILL)
        child.kill()
        child.wait()
    assert resident(child.pid) == 0


CALLING = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts in the background
from jclip.accelerators import compiler_process
from jclip.accelerators.targets import parse_place

compiler_process.check_installed = lambda modules: None

def hang(compiler, notes):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(notes + ".new", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.rename(notes + ".new", notes)
    while True:  # as a compiler does, without letting Python handle signals
        time.sleep(1)

# jclip's own process, without a compiler.
serve = "from jclip.accelerators import worker; worker.Compiler = lambda place, say: None; worker.serve()"
with compiler_process.CompilerProcess(parse_place("v5e:2x2"), command=(sys.executable, "-c", serve)) as process:
    process.call(hang, sys.argv[1])
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_command_is_ended(how, tmp_path):
    notes = tmp_path / "pids"
    command = [sys.executable, "-c", CALLING, str(notes)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT) as caller:
        assert wait_for(notes.exists, 60)
        pids = [int(pid) for pid in notes.read_text().split()]
        assert all(map(is_alive, pids))
        caller.send_signal(how)
        try:
            caller.wait(20)
        finally:
            caller.kill()
        assert wait_for(lambda: not any(map(is_alive, pids)))


def test_each_compilation_has_the_whole_time():
    """The clock restarts when the process reports the next one."""
    happened = []

    class Process:
        answers = iter([(PROGRESS, "first"), (PROGRESS, "second"), (RESULT, 3)])

        @contextmanager
        def within(self, seconds, more_time):
            happened.append(f"{seconds} s")
            yield
            happened.append("in time")

        def send(self, message):
            happened.append("sent")

        def receive(self):
            return next(self.answers)

        def end(self):
            pass

    with CompilerProcess(parse_place("v5e:2x2"), seconds=8, progress=happened.append) as process:
        process._process = Process()
        assert process.call(max) == 3
    between = ["8 s", "in time"]
    assert happened == ["8 s", "sent", "in time", "first", *between, "second", *between]


def test_what_cannot_be_sent_is_one_line():
    with fake("answer") as process, pytest.raises(JclipError, match="run cannot be sent to the compiler's process: .*"):
        process.call(max, threading.Lock())


def test_what_python_prints_when_it_starts(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    socket.setdefaulttimeout(0.01)
    try:
        with fake("answer") as process:
            assert process.call(max, 1) == ["v5e:2x2", 1]
        with fake("exit") as process, pytest.raises(CompilerFailed, match="cannot open shared object file"):
            process.call(max)
    finally:
        socket.setdefaulttimeout(None)


def test_classes_of_a_configuration_file_are_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine:\n    width: int\n"
        "    def area(self):\n        return self.width ** 2\n"
    )
    mine = import_file(tmp_path / "mine.py").Mine(3)
    serve = "from jclip.accelerators import worker; worker.Compiler = lambda place, say: None; worker.serve()"
    with CompilerProcess(parse_place("v5e:2x2"), command=(sys.executable, "-c", serve)) as process:
        assert process.call(lambda compiler, each: each.area(), mine) == 9


def test_the_child_answers():
    """Calls jclip's own process, without a compiler: results, errors, and a request that it cannot read."""
    serve = "from jclip.accelerators import worker; worker.Compiler = lambda place, say: say; worker.serve()"
    said = []
    place = parse_place("v5e:2x2")
    with CompilerProcess(place, command=(sys.executable, "-c", serve), progress=said.append) as process:
        assert process.call(lambda say, *words: (say("working"), print("noise"), words)[-1], 1, 2) == (1, 2)
        assert said == ["working"]
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            process.call(lambda say: 1 / 0)
        with pytest.raises(JclipError, match="'v6' is not a known target"):
            process.call(lambda say: parse_place("v6"))
        with pytest.raises(RuntimeError, match="pickle"):  # a result that cannot be sent
            process.call(lambda say: lambda: None)
        assert process.call(lambda say: 3) == 3
