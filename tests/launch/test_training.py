"""Launchers really train: two processes of two devices, to the last bundle; the slow tests preempt them on the way."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = {
    "altclip/vit_l_14": ("1-teacher", "2-contrastive"),
    "chinese_clip/vit_b_16": ("1-image-frozen", "2-everything"),
}
WORKDIR = "runs/short"


def multi_gpu(machine, folder, config):
    machine.environment |= {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
    }
    workdir = folder / WORKDIR
    return workdir, ("multi_gpu.sh", "--processes", "2", config, "--workdir", str(workdir))


def slurm(machine, folder, config):
    return folder / WORKDIR, ("slurm.sh", "--nodes", "2", "--work", str(folder), config, "--workdir", WORKDIR)


def tpu_pod(machine, folder, config):
    call = ("tpu_pod.sh", "run", "--name", "n", "--zone", "z", "--type", "v6e-16", "--bucket", "b", "--spot")
    return machine.state / "buckets/b" / WORKDIR, (*call, config, "--workdir", WORKDIR)


def gke(machine, folder, config):
    call = ("gke.sh", "run", "--name", "n", "--image", "i", "--gpu", "g", "--nodes", "2", "--bucket", "b")
    return machine.state / "work" / WORKDIR, (*call, config, "--workdir", WORKDIR)


def ask_one_to_stop(machine, workdir, launcher):
    """Sends SIGTERM to one process after the first step; the others must stop with it."""
    journal = workdir / "metrics.jsonl"
    while not (journal.exists() and '"train"' in journal.read_text(encoding="utf-8")):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)
    (pid,) = (c["pid"] for c in machine.calls("jclip") if c["environment"]["JCLIP_PROCESS"] == "1")
    os.kill(pid, signal.SIGTERM)


def assert_trained(workdir, bundles):
    """Checks that both stages' bundles exist, and that each of their four steps was logged once."""
    for bundle in bundles:
        assert (workdir / bundle / "config.json").exists()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["total"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4]


def test_jax_finds_the_processes_by_slurms_variables(machine, tmp_path):
    workdir, call = slurm(machine, tmp_path, "tests/train/toy.py")
    machine.run(*call, "--reduced")
    assert_trained(workdir, ("1-image-frozen", "2-everything"))
    # On a busy machine they may miss each other (gloo waits for 30 seconds), and are started again.
    assert len(machine.calls("jclip")) in (2, 4) and (machine.state / "job.code").read_text() == "0"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.split("/")[0])
@pytest.mark.parametrize("launcher", [slurm, multi_gpu, tpu_pod, gke])
def test_preempted_it_trains_to_its_bundles(machine, tmp_path, launcher, recipe):
    folder = tmp_path / "shared"
    folder.mkdir()
    workdir, call = launcher(machine, folder, recipe)
    if launcher is multi_gpu:
        started = machine.start(*call, "--reduced")
        ask_one_to_stop(machine, workdir, started)
        _, err = started.communicate(timeout=1800)
        assert started.returncode == 0 and "the run has saved and stopped: starting it again" in err, err
    else:
        machine.preempt(workdir)
        machine.run(*call, "--reduced")

    assert_trained(workdir, RECIPES[recipe])
    # Two processes, started twice. On a busy machine they may miss each other (gloo waits for 30 seconds), and the
    # launcher restarts them as after any other crash.
    assert len(machine.calls("jclip")) in (4, 6, 8)
    if launcher is slurm:
        assert (machine.state / "job.code").read_text() == "0" and machine.calls("scontrol")
