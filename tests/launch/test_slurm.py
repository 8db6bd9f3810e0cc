"""Slurm, with a stand-in for `jclip`; test_training.py really trains."""

import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = "configs/altclip/vit_l_14.py"


@pytest.fixture
def job(machine, tmp_path):
    """Returns a function that submits a job and returns its exit code and log."""
    work = tmp_path / "work"
    work.mkdir()

    def submit(*options: str) -> tuple[int, str]:
        machine.run("slurm.sh", "--work", str(work), *options, CONFIG, "--workdir", "runs/x y")
        (log,) = (file for file in (work / "logs").iterdir() if file.suffix == ".log")
        return int((machine.state / "job.code").read_text()), log.read_text()

    return submit


def test_dry_run(machine, tmp_path):
    out, _ = machine.run(
        "slurm.sh", "--dry-run", "--nodes", "4", "--gpus", "8", "--time", "24:00:00", "--account", "me",
        "--sbatch=--constraint=h100", "--work", str(tmp_path), CONFIG, "--mesh.fsdp", "8",
    )  # fmt: skip
    make_folder, submit = out.splitlines()
    assert make_folder == f"mkdir -p {tmp_path}/logs"
    words = shlex.split(submit)
    assert {
        "--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--time=24:00:00", "--account=me",
        "--constraint=h100", "--requeue", "--signal=TERM@120", "--open-mode=append", f"--chdir={tmp_path}",
    } <= set(words)  # fmt: skip
    assert words[-3:] == [str(ROOT / CONFIG), "--mesh.fsdp", "8"]
    assert machine.calls("sbatch") == []


def test_a_process_a_node_drives_all_its_gpus(machine, job):
    machine.script("0")
    assert job("--nodes", "2", "--gpus", "4")[0] == 0
    calls = machine.calls("jclip")
    assert [call["environment"]["JAX_LOCAL_DEVICE_IDS"] for call in calls] == ["0,1,2,3"] * 2
    assert {call["environment"]["SLURM_PROCID"] for call in calls} == {"0", "1"}
    assert calls[0]["arguments"] == ["train", str(ROOT / CONFIG), "--workdir", "runs/x y", "--distributed"]
    assert calls[0]["folder"].endswith("/work")


def test_a_process_a_gpu(machine, job):
    machine.script("0")
    assert job("--nodes", "2", "--gpus", "2", "--per-gpu", "--cpus", "6")[0] == 0
    environments = [call["environment"] for call in machine.calls("jclip")]
    assert sorted((e["SLURM_PROCID"], e["SLURM_LOCALID"]) for e in environments) == [
        ("0", "0"), ("1", "1"), ("2", "0"), ("3", "1"),
    ]  # fmt: skip
    assert not any("JAX_LOCAL_DEVICE_IDS" in environment for environment in environments)
    (submitted,) = machine.calls("sbatch")
    assert "--cpus-per-task=6" in submitted["arguments"] and "--gpus-per-node=2" in submitted["arguments"]


def test_queued_again_however_often(machine, job):
    machine.script("75", "75", "75", "0")
    code, log = job("--restarts", "1", "--gpus", "0")
    assert code == 0 and log.count("queued again") == 3 and len(machine.calls("scontrol")) == 3


def test_crashes_are_counted(machine, job):
    machine.script("137")
    code, log = job("--restarts", "2")
    assert code == 137 and "2 restarts did not help" in log and len(machine.calls("jclip")) == 3


def test_one_task_that_leaves_early_does_not_have_the_others_killed(machine, job):
    machine.script("75|0", "0")
    assert job("--nodes", "2")[0] == 0
    assert all("--kill-on-bad-exit=0" in call["arguments"] for call in machine.calls("srun"))


@pytest.mark.parametrize("ends", [2, 130])
def test_an_error_and_ctrl_c_end_it(machine, job, ends):
    machine.script(str(ends))
    code, log = job()
    assert code == ends and machine.calls("scontrol") == []
    assert ("an error that a restart would repeat" in log) == (ends == 2)
