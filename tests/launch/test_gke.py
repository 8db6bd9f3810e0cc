"""Google Kubernetes Engine, with a stand-in for `jclip`; test_training.py really trains."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = "configs/altclip/vit_l_14.py"
GPUS = ("run", "--name", "alt", "--image", "repo/jclip:1", "--gpu", "nvidia-h100-80gb", "--claim", "disk")
SLICE = ("run", "--name", "alt", "--image", "i", "--tpu", "tpu-v6e-slice", "--topology", "4x4", "--nodes", "4")


def rendered(machine, *arguments):
    """Returns the manifest, parsed, and its one container."""
    out, _ = machine.run("gke.sh", *arguments[:1], "--dry-run", *arguments[1:])
    manifest, command = out.rsplit("kubectl ", 1)
    assert command == "apply -f -\n" and "@" not in manifest.split("spec:", 1)[1]
    parsed = yaml.safe_load(manifest)
    job = parsed["spec"]["replicatedJobs"][0]["template"]["spec"]
    return parsed, job, job["template"]["spec"]


def test_nodes_with_gpus(machine):
    manifest, job, pod = rendered(machine, *GPUS, "--nodes", "2", "--spot", CONFIG, "--workdir", 'a "b"')
    (container,) = pod["containers"]
    assert manifest["metadata"]["name"] == "alt" and job["completions"] == job["parallelism"] == 2
    assert container["command"] == ["jclip", "train", f"/jclip/{CONFIG}", "--workdir", 'a "b"']
    variables = {entry["name"]: entry for entry in container["env"]}
    assert variables["JCLIP_COORDINATOR"]["value"] == "alt-train-0-0.alt:8476"
    assert variables["JCLIP_PROCESSES"]["value"] == "2"
    assert "job-completion-index" in variables["JCLIP_PROCESS"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "disk"}
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "false"}


def test_a_slice(machine):
    _, job, pod = rendered(machine, *SLICE, "--bucket", "gs://mine", CONFIG)
    (container,) = pod["containers"]
    assert job["completions"] == 4 and container["env"] == []
    assert container["command"][-1] == "--distributed"  # jax finds the slice's processes by itself
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "mine"
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (f"./{CONFIG}", f"/jclip/{CONFIG}"),
        (str(ROOT / CONFIG), f"/jclip/{CONFIG}"),
        ("/jclip/configs/only/there.py", "/jclip/configs/only/there.py"),
        ("/work/mine.py", "/work/mine.py"),
        ("altclip/vit_l_14", "altclip/vit_l_14"),
    ],
    ids=["from the top", "anywhere", "in the image alone", "on the disk", "a recipe"],
)
def test_where_the_configuration_lies(machine, given, path):
    _, _, pod = rendered(machine, *GPUS, given)
    assert pod["containers"][0]["command"][2] == path


def test_the_set_restarts_what_can_go_on(machine):
    machine.script("75|75", "137|134", "0")
    machine.run("gke.sh", *GPUS, "--nodes", "2", CONFIG)
    assert len(machine.calls("jclip")) == 6
    machine.run("gke.sh", "wait", "--name", "alt")


def test_the_set_restarts_only_so_often(machine):
    machine.script("137")
    machine.run("gke.sh", *GPUS, "--restarts", "2", CONFIG)
    assert len(machine.calls("jclip")) == 3
    _, err = machine.run("gke.sh", "wait", "--name", "alt", code=2)
    assert "alt has failed" in err


def test_an_error_ends_it(machine):
    machine.script("2|75")
    machine.run("gke.sh", *GPUS, "--nodes", "2", CONFIG)
    assert len(machine.calls("jclip")) == 2
    machine.run("gke.sh", "wait", "--name", "alt", code=2)


def test_the_other_verbs(machine):
    for verb, expected in (
        ("logs", "kubectl logs --follow job/alt-train-0"),
        ("status", "kubectl get jobset,jobs,pods -l jobset.sigs.k8s.io/jobset-name=alt"),
        ("stop", "kubectl --namespace=ns delete jobset alt"),
    ):
        namespace = ("--namespace", "ns") if verb == "stop" else ()
        out, _ = machine.run("gke.sh", verb, "--dry-run", "--name", "alt", *namespace)
        assert out == f"{expected}\n"
    assert machine.calls("kubectl") == []
