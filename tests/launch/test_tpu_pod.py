"""Cloud TPU slices, with a stand-in for `jclip`; test_training.py really trains."""

import shlex
import signal
import time

CONFIG = "configs/altclip/vit_l_14.py"
NODE = ("--name", "pod", "--zone", "us-east5-b")
RUN = ("run", *NODE, "--type", "v6e-16", "--bucket", "gs://mine")


def verbs(machine):
    """Returns the verbs of the calls to gcloud, except describe."""
    calls = [call["arguments"][2:4] for call in machine.calls("gcloud")]
    return [" ".join(call) for call in calls if call[1] != "describe"]


def test_dry_run(machine):
    out, _ = machine.run(
        "tpu_pod.sh", *RUN, "--project", "p", "--spot", "--queued", "--delete", "--dry-run", CONFIG, "--workdir", "a b"
    )
    create, pack, copy, unpack, install, mount, train, delete = (shlex.split(line) for line in out.splitlines())
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "pod"]
    assert {
        "--node-id=pod", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--spot",
        "--zone=us-east5-b", "--project=p",
    } <= set(create)  # fmt: skip
    assert pack[0] == "tar" and copy[4] == "scp" and "--worker=all" in copy
    for command in (unpack, install, mount, train):
        assert command[3:6] == ["tpu-vm", "ssh", "pod"] and "--worker=all" in command
    assert "--command=jclip/launch/tpu_worker.sh mount mine" in mount
    assert any(word.endswith(f"{CONFIG} --workdir a\\ b") for word in train)
    assert delete[3:6] == ["queued-resources", "delete", "pod"] and "--force" in delete
    assert machine.calls("gcloud") == []


def test_without_the_queue(machine):
    out, _ = machine.run("tpu_pod.sh", *RUN, "--runtime", "mine", "--dry-run", CONFIG)
    create = shlex.split(out.splitlines()[0])
    assert create[3:6] == ["tpu-vm", "create", "pod"] and "--version=mine" in create and "--spot" not in create


def test_another_tree_and_another_disk(machine):
    out, _ = machine.run(
        "tpu_pod.sh", "run", *NODE, "--type", "v4-16", "--setup", "sudo mount nfs:/x work", "--repo", "https://host/r",
        "--ref", "v1", "--dry-run", "configs/only/there.py",
    )  # fmt: skip
    commands = [word for line in out.splitlines() for word in shlex.split(line) if word.startswith("--command=")]
    assert "git clone --quiet https://host/r jclip && git -C jclip checkout --quiet v1" in commands[0]
    assert commands[2] == "--command=sudo mount nfs:/x work" and commands[3].endswith(" configs/only/there.py")


def test_made_installed_trained_and_deleted(machine):
    machine.script("0")
    machine.run("tpu_pod.sh", *RUN, "--queued", "--delete", CONFIG, "--workdir", "a b")
    assert verbs(machine) == ["queued-resources create", "tpu-vm scp", *["tpu-vm ssh"] * 4, "queued-resources delete"]
    assert len(machine.calls("uv")) == 2 and {c["arguments"][0] for c in machine.calls("gcsfuse")} == {
        "--implicit-dirs"
    }
    calls = machine.calls("jclip")
    assert len(calls) == 2
    for call in calls:
        tree = call["arguments"][1].removesuffix(f"/{CONFIG}")
        assert call["arguments"] == ["train", f"{tree}/{CONFIG}", "--workdir", "a b", "--distributed"]
        assert tree.endswith("/jclip") and call["folder"].endswith("/buckets/mine")


def test_started_again_on_the_same_node(machine):
    machine.script("75", "137", "0")
    _, err = machine.run("tpu_pod.sh", *RUN, "--restarts", "1", CONFIG)
    assert "restart 1 of 1" in err and verbs(machine).count("tpu-vm create") == 1 and len(machine.calls("uv")) == 2
    assert len(machine.calls("jclip")) == 6


def test_crashes_are_counted(machine):
    machine.script("137")
    _, err = machine.run("tpu_pod.sh", *RUN, "--restarts", "2", CONFIG, code=137)
    assert "2 restarts did not help" in err and len(machine.calls("jclip")) == 6


def test_an_error_ends_it_and_the_node_is_deleted(machine):
    machine.script("2")
    _, err = machine.run("tpu_pod.sh", *RUN, "--delete", CONFIG, code=2)
    assert "an error that a restart would repeat" in err and len(machine.calls("jclip")) == 2
    assert verbs(machine)[-1] == "tpu-vm delete"


def wait_for_workers(machine, launcher):
    while not all((machine.state / f"waiting-{worker}").exists() for worker in (0, 1)):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)


def test_preempted_it_is_made_again(machine):
    machine.script("wait", "0")
    workdir = machine.state / "buckets" / "mine"
    machine.preempt(workdir)
    launcher = machine.start("tpu_pod.sh", *RUN, CONFIG)
    wait_for_workers(machine, launcher)
    (workdir / "metrics.jsonl").write_text('{"kind": "train"}')
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    assert "pod was lost, probably preempted" in err and "pod is PREEMPTED: deleting and creating it again" in err
    assert [verb for verb in verbs(machine) if verb.endswith(("create", "delete"))] == [
        "tpu-vm create", "tpu-vm delete", "tpu-vm create",
    ]  # fmt: skip
    assert len(machine.calls("uv")) == 4 and len(machine.calls("jclip")) == 4


def test_left_and_come_back_to_and_stopped(machine, tmp_path):
    machine.script("wait", "0")
    launcher = machine.start("tpu_pod.sh", *RUN, CONFIG)
    wait_for_workers(machine, launcher)
    launcher.send_signal(signal.SIGKILL)  # as if a laptop were closed
    again = machine.start("tpu_pod.sh", *RUN, CONFIG)
    assert "pod is training already: returning to it" in again.stderr.readline()
    machine.run("tpu_pod.sh", "logs", *NODE, "--logs", str(tmp_path / "logs"))
    assert sorted(file.name for file in (tmp_path / "logs").iterdir()) == ["0.log", "1.log"]
    machine.run("tpu_pod.sh", "stop", *NODE)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 130 and "stopped by request and saved" in err
    launcher.communicate()
    assert len(machine.calls("jclip")) == len(machine.calls("uv")) == 2
    machine.run("tpu_pod.sh", *RUN, CONFIG)
    assert len(machine.calls("jclip")) == 4
