"""Rules for every launcher: it passes shellcheck, has a help text, and refuses bad input in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = "configs/altclip/vit_l_14.py"
SCRIPTS = sorted(path for path in (ROOT / "launch").iterdir() if path.suffix in (".sh", ".sbatch"))
TPU = ("run", "--name", "n", "--zone", "z", "--type", "v6e-16")
GKE = ("run", "--name", "n", "--image", "i")
GPUS = ("gke.sh", *GKE, "--gpu", "g", "--bucket", "b")


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [shellcheck, "--external-sources", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_script_stops_at_the_first_error():
    for script in SCRIPTS:
        assert script.name == "common.sh" or "\nset -euo pipefail\n" in script.read_text(encoding="utf-8"), script.name


@pytest.mark.parametrize("script", ["multi_gpu.sh", "slurm.sh", "tpu_pod.sh", "gke.sh"])
def test_help_names_every_option(machine, script):
    text, _ = machine.run(script, "--help")
    source = (ROOT / "launch" / script).read_text(encoding="utf-8")
    options = {
        word
        for line in source.splitlines()
        if line.strip().startswith("--") and ")" in line
        for word in line.strip().split(")")[0].split(" | ")
    }
    assert len(options) > 3 and all(option.rstrip("=*") in text for option in options)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (("multi_gpu.sh",), "CONFIG is missing"),
        (("multi_gpu.sh", "nowhere.py"), "nowhere.py is neither a file nor a recipe"),
        (("multi_gpu.sh", "--processes"), "--processes needs a value"),
        (("multi_gpu.sh", "--processes", "two", CONFIG), "--processes takes a whole number, not 'two'"),
        (("multi_gpu.sh", "--processes", "08", CONFIG), "--processes takes a whole number, not '08': write it like 8"),
        (("multi_gpu.sh", "--processes", "4294967297", CONFIG), "--processes takes a whole number, not '4294967297'"),
        (("multi_gpu.sh", "--processes", "0", CONFIG), "--processes takes 1 or more, not 0"),
        (("multi_gpu.sh", "--restarts", "010", CONFIG), "--restarts takes a whole number, not '010'"),
        (("multi_gpu.sh", "--proceses", "2", CONFIG), "unknown option --proceses"),
        (("slurm.sh",), "CONFIG is missing"),
        (("slurm.sh", "nowhere.py"), "nowhere.py is neither a file nor a recipe"),
        (("slurm.sh", "--work", "/nowhere", CONFIG), "--work /nowhere does not exist"),
        (("slurm.sh", "--venv", "/nowhere", CONFIG), "/nowhere/bin/jclip does not exist"),
        (("slurm.sh", "--gpus", "0", "--per-gpu", CONFIG), "--per-gpu needs GPUs"),
        (("slurm.sh", "--nodes", "0", CONFIG), "--nodes takes 1 or more, not 0"),
        (("slurm.sh", "--nodes", "08", CONFIG), "--nodes takes a whole number, not '08': write it like 8"),
        (("slurm.sh", "--gpus", "08", CONFIG), "--gpus takes a whole number, not '08': write it like 8"),
        (("slurm.sh", "--partitions", "a", CONFIG), "unknown option --partitions"),
        (("tpu_pod.sh",), "give a command: run, logs, stop or delete"),
        (("tpu_pod.sh", "run"), "--name is missing"),
        (("tpu_pod.sh", "stop", "--name", "n"), "--zone is missing"),
        (("tpu_pod.sh", "logs", "--name", "n", "--zone", "z"), "--logs is missing"),
        (("tpu_pod.sh", *TPU[:5], CONFIG), "--type is missing"),
        (("tpu_pod.sh", *TPU), "CONFIG is missing"),
        (("tpu_pod.sh", *TPU, CONFIG), "give --bucket, or --setup"),
        (("tpu_pod.sh", *TPU, "--bucket", "b", "--setup", "true", CONFIG), "--bucket or --setup, not both"),
        (
            ("tpu_pod.sh", *TPU, "--bucket", "b", "--restarts", "08", CONFIG),
            "--restarts takes a whole number, not '08'",
        ),
        (("tpu_pod.sh", *TPU, "--bucket", "b", "nowhere.py"), "nowhere.py is neither a recipe nor a file in this tree"),
        (("tpu_pod.sh", *TPU, "--bucket", "b", "--ref", "main", CONFIG), "--repo is missing"),
        (("tpu_pod.sh", *TPU[:6], "v9-8", "--bucket", "b", CONFIG), "no runtime known for --type v9-8"),
        (("tpu_pod.sh", *TPU, "--sport", CONFIG), "unknown option --sport"),
        (("gke.sh",), "give a command: run, logs, status, wait or stop"),
        (("gke.sh", "run"), "--name is missing"),
        (("gke.sh", "run", "--name", "A_b"), "--name A_b: lower-case letters"),
        (("gke.sh", "run", "--name", "n", CONFIG), "--image is missing"),
        (("gke.sh", *GKE), "CONFIG is missing"),
        (("gke.sh", *GKE, "nowhere.py"), "nowhere.py is neither a recipe nor a file under configs/"),
        (("gke.sh", *GKE, "configs/nowhere.py"), "configs/nowhere.py is neither a recipe nor a file under"),
        (("gke.sh", *GKE, "launch/common.sh"), "launch/common.sh is neither a recipe nor a file under"),
        (("gke.sh", *GKE, f"/nowhere/{CONFIG}"), "give a path in the container, /jclip/configs/... or /work/..."),
        (("gke.sh", *GKE, CONFIG), "give --tpu and --topology, or --gpu"),
        (("gke.sh", *GKE, "--gpu", "g", "--tpu", "t", CONFIG), "--tpu or --gpu, not both"),
        (("gke.sh", *GKE, "--tpu", "t", CONFIG), "--tpu t needs --topology"),
        (("gke.sh", *GKE, "--gpu", "g", CONFIG), "give --bucket or --claim"),
        (("gke.sh", *GKE, "--gpu", "g", "--bucket", "b", "--claim", "c", CONFIG), "--bucket or --claim, not both"),
        ((*GPUS, "--nodes", "0", CONFIG), "--nodes takes 1 or more, not 0"),
        ((*GPUS, "--per-node", "0", CONFIG), "--per-node takes 1 or more, not 0"),
        ((*GPUS, "--nodes", "08", CONFIG), "--nodes takes a whole number, not '08': write it like 8"),
        *(
            (
                ("gke.sh", *GKE, "--tpu", "t", "--topology", wrong, "--bucket", "b", CONFIG),
                f"--topology takes the chips of each side, like 4x4 or 2x2x4, not '{wrong}'",
            )
            for wrong in ("4xfoo", "4", "4x", "0x4", "04x4", "nodes", "2x2x2x2", "2x2 2")
        ),
        (
            ("gke.sh", *GKE, "--tpu", "t", "--topology", "4x4", "--nodes", "2", "--bucket", "b", CONFIG),
            "--topology 4x4 has 16 chips, but --nodes 2 with --per-node 4 are 8",
        ),
        (("gke.sh", *GKE, "--gpus", "g", CONFIG), "unknown option --gpus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input(machine, call, complaint):
    out, err = machine.run(*call, code=2)
    assert out == "" and complaint in err and len(err.splitlines()) == 1
    assert (
        machine.calls("sbatch") == machine.calls("gcloud") == machine.calls("kubectl") == machine.calls("jclip") == []
    )


@pytest.mark.parametrize(
    ("call", "tool"),
    [
        (("multi_gpu.sh", CONFIG), "jclip"),
        (("slurm.sh", CONFIG), "sbatch"),
        (("tpu_pod.sh", "stop", "--name", "n", "--zone", "z"), "gcloud"),
        (("gke.sh", "stop", "--name", "n"), "kubectl"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_tool_that_is_not_installed(machine, call, tool):
    machine.without_tools()
    _, err = machine.run(*call, code=2)
    assert f"{tool} is not on PATH: " in err and len(err.splitlines()) == 1
