"""Launchers really train: two processes of two devices, preempted on the way, to the last bundle."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = "tests/train/toy.py"
RECIPES = {
    "altclip/vit_l_14": ("1-teacher", "2-contrastive"),
    "chinese_clip/vit_b_16": ("1-image-frozen", "2-everything"),
    TOY: ("1-image-frozen", "2-everything"),
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


def cases():
    """Yields a quick case, in which jax finds the processes by Slurm's variables, and slow ones of both recipes."""
    yield pytest.param(slurm, TOY, id="slurm-toy")
    for launcher in (slurm, multi_gpu, tpu_pod, gke):
        for recipe in list(RECIPES)[:2]:
            yield pytest.param(
                launcher, recipe, marks=pytest.mark.slow, id=f"{launcher.__name__}-{recipe.split('/')[0]}"
            )


def ask_one_to_stop(machine, workdir, launcher):
    """Sends SIGTERM to one process after the first step; the others must stop with it."""
    journal = workdir / "metrics.jsonl"
    while not (journal.exists() and '"train"' in journal.read_text(encoding="utf-8")):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)
    (pid,) = (c["pid"] for c in machine.calls("jclip") if c["environment"]["JCLIP_PROCESS"] == "1")
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize(("launcher", "recipe"), list(cases()))
def test_preempted_it_trains_to_its_bundles(machine, tmp_path, launcher, recipe):
    folder = tmp_path / "shared"
    folder.mkdir()
    workdir, call = launcher(machine, folder, recipe)
    count = 4
    if recipe == TOY:  # its steps are quick, and the first stage must last until the preemption
        call, count = (*call, "--stages.0.budget.steps", "80"), 82
    if launcher is multi_gpu:
        started = machine.start(*call, "--reduced")
        ask_one_to_stop(machine, workdir, started)
        _, err = started.communicate(timeout=1800)
        assert started.returncode == 0 and "the run has saved and stopped: starting it again" in err, err
    else:
        machine.preempt(workdir)
        machine.run(*call, "--reduced")

    for bundle in RECIPES[recipe]:
        assert (workdir / bundle / "config.json").exists()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line["total"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, count + 1))
    # Two processes, started twice. On a busy machine they may miss each other (gloo waits for 30 seconds), and the
    # launcher restarts them as after any other crash.
    assert len(machine.calls("jclip")) in (4, 6, 8)
    if launcher is slurm:
        assert (machine.state / "job.code").read_text() == "0" and machine.calls("scontrol")
