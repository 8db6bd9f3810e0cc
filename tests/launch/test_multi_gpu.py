"""One machine with several GPUs, with a stand-in for `jclip`; test_training.py really trains."""

import shlex
import signal
import time

import pytest

CONFIG = "configs/altclip/vit_l_14.py"


def test_one_process_by_default(machine):
    out, _ = machine.run("multi_gpu.sh", "--dry-run", CONFIG, "--workdir", "runs/a b")
    assert shlex.split(out) == ["jclip", "train", CONFIG, "--workdir", "runs/a b"]
    assert machine.calls("jclip") == []
    machine.script("0")
    machine.run("multi_gpu.sh", CONFIG, "--workdir", "runs/a b")
    (call,) = machine.calls("jclip")
    assert call["arguments"] == ["train", CONFIG, "--workdir", "runs/a b"] and call["environment"] == {}


def test_the_gpus_are_split(machine):
    machine.environment["CUDA_VISIBLE_DEVICES"] = "4,5,6,7"
    out, _ = machine.run("multi_gpu.sh", "--dry-run", "--processes", "2", CONFIG)
    assert [line.split()[1] for line in out.splitlines()] == ["CUDA_VISIBLE_DEVICES=4,5", "CUDA_VISIBLE_DEVICES=6,7"]
    machine.script("0")
    machine.run("multi_gpu.sh", "--processes", "2", CONFIG)
    first, second = sorted((call["environment"] for call in machine.calls("jclip")), key=lambda e: e["JCLIP_PROCESS"])
    assert first["JCLIP_COORDINATOR"] == second["JCLIP_COORDINATOR"]
    assert [first["JCLIP_PROCESS"], second["JCLIP_PROCESS"], second["JCLIP_PROCESSES"]] == ["0", "1", "2"]
    assert [first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]] == ["4,5", "6,7"]


def test_gpus_that_cannot_be_split(machine):
    machine.environment["CUDA_VISIBLE_DEVICES"] = "0,1,2"
    _, err = machine.run("multi_gpu.sh", "--processes", "2", CONFIG, code=2)
    assert "3 GPUs cannot be split among 2 processes evenly" in err


def test_asked_to_start_again_it_does_however_often(machine):
    machine.script("75", "75", "75", "0")
    machine.run("multi_gpu.sh", "--restarts", "1", CONFIG)
    assert len(machine.calls("jclip")) == 4


def test_crashes_are_counted(machine):
    machine.script("137", "134", "0")
    machine.run("multi_gpu.sh", "--restarts", "2", CONFIG)
    assert len(machine.calls("jclip")) == 3
    machine.script("137")
    _, err = machine.run("multi_gpu.sh", "--restarts", "2", CONFIG, code=137)
    assert "2 restarts did not help" in err and len(machine.calls("jclip")) == 6


def test_an_error_ends_it(machine):
    machine.script("2")
    _, err = machine.run("multi_gpu.sh", CONFIG, code=2)
    assert "an error that a restart would repeat" in err and len(machine.calls("jclip")) == 1


def test_a_process_that_dies_takes_the_others_with_it(machine):
    machine.environment["CUDA_VISIBLE_DEVICES"] = "0,1"
    machine.script("wait|3")
    machine.run("multi_gpu.sh", "--processes", "2", CONFIG, code=3)
    assert len(machine.calls("jclip")) == 2


def test_a_run_stopped_by_hand_is_not_started_again(machine):
    machine.script("130")
    machine.run("multi_gpu.sh", CONFIG, code=130)
    assert len(machine.calls("jclip")) == 1


def start_with_a_signal(machine, folder, before):
    """Starts the launcher and sends it SIGTERM right before its first command that begins with `before`."""
    hook = folder / "hook.sh"
    hook.write_text(f"set -T\ntrap 'case $BASH_COMMAND in {before}*) trap - DEBUG && kill -TERM $$ ;; esac' DEBUG\n")
    machine.environment["BASH_ENV"] = str(hook)
    return machine.start("multi_gpu.sh", CONFIG)


@pytest.mark.parametrize(("before", "runs"), [("crashes=0", 0), ("say", 1)], ids=["the first run", "the second run"])
def test_stopped_before(machine, tmp_path, before, runs):
    machine.script("75", "0")
    launcher = start_with_a_signal(machine, tmp_path, before)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 75 and len(machine.calls("jclip")) == runs


def test_stopped_before_a_process_has_started(machine, tmp_path):
    machine.script("wait")
    launcher = start_with_a_signal(machine, tmp_path, "command_of")
    try:
        launcher.communicate(timeout=60)
    finally:
        launcher.terminate()
    assert launcher.returncode in (75, 143)  # the signal may arrive before the process can save


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda asked: asked.name)
def test_signals_are_passed_on(machine, asked):
    machine.environment["CUDA_VISIBLE_DEVICES"] = "0,1"
    machine.script("wait")
    launcher = machine.start("multi_gpu.sh", "--processes", "2", CONFIG)
    while not all((machine.state / f"waiting-{process}").exists() for process in (0, 1)):
        assert launcher.poll() is None
        time.sleep(0.05)
    launcher.send_signal(asked)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 75 and len(machine.calls("jclip")) == 2
