"""`kubectl`: a cluster with one JobSet at a time, whose pods are processes here; it restarts them as the JobSet says.

The image's folder /jclip is this tree, and the volume at /work is a folder of the stand-ins'.
"""

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from shared import STATE, record, refuse, run_together

WORK = STATE / "work"
TREE = Path(__file__).parents[3]


def environment(pod: dict[str, Any], name: str, index: int) -> dict[str, str]:
    """Returns the container's variables, with those that Kubernetes fills in."""
    found = {}
    for entry in pod["containers"][0]["env"]:
        value = entry.get("value")
        if "valueFrom" in entry:
            if entry["valueFrom"]["fieldRef"]["fieldPath"] != (
                "metadata.annotations['batch.kubernetes.io/job-completion-index']"
            ):
                refuse("kubectl", f"no such field: {entry['valueFrom']}")
            value = str(index)
        # Stands for the cluster's DNS: the first pod of the JobSet's first job is local.
        found[entry["name"]] = value.replace(f"{name}-train-0-0.{name}:", "127.0.0.1:")
    return found


def fails_for_good(job: dict[str, Any], policy: dict[str, Any], codes: list[int]) -> bool:
    """Returns whether the pods' exit codes end the set, by the rules of the Job and of the JobSet."""
    for rule in job["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            wanted = rule["onExitCodes"]
            if wanted["operator"] != "NotIn" or wanted["values"] != sorted(set(wanted["values"])):
                refuse("kubectl", f"podFailurePolicy: {wanted}")
            if any(code and code not in wanted["values"] for code in codes):
                (reaction,) = policy["rules"]
                return reaction["onJobFailureReasons"] == ["PodFailurePolicy"] and reaction["action"] == "FailJobSet"
    return False


def apply(manifest: dict[str, Any]) -> str:
    """Runs the set to its end, and records how it ended."""
    if (manifest["apiVersion"], manifest["kind"]) != ("jobset.x-k8s.io/v1alpha2", "JobSet"):
        refuse("kubectl", f"no matches for kind {manifest['kind']} in {manifest['apiVersion']}")
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    if (job["completionMode"], job["backoffLimit"], pod["restartPolicy"]) != ("Indexed", 0, "Never"):
        refuse("kubectl", "these pods would be restarted alone, without their peers")
    (container,) = pod["containers"]
    config = container["command"][2]
    if container["workingDir"] != "/work" or not (
        config.startswith("/jclip/") or (TREE / "configs" / f"{config}.py").is_file()
    ):
        refuse("kubectl", f"{config} is neither a path of the image nor a recipe")
    command = [argument.replace("/jclip/", f"{TREE}/") for argument in container["command"]]
    pods = [environment(pod, manifest["metadata"]["name"], index) for index in range(job["completions"])]
    WORK.mkdir(exist_ok=True)
    policy = manifest["spec"]["failurePolicy"]
    for _ in range(policy["maxRestarts"] + 1):
        with (STATE / "pods.log").open("a") as log:
            codes = run_together([command] * len(pods), pods, cwd=WORK, stdout=log, stderr=log)
        if not any(codes):
            return "Completed"
        if fails_for_good(job, policy, codes):
            break
    return "Failed"


record("kubectl")
match sys.argv[1:]:
    case ["apply", "-f", "-"]:
        (STATE / "condition").write_text(apply(yaml.safe_load(sys.stdin)))
    case ["wait", condition, _, _]:
        os._exit(condition != f"--for=condition={(STATE / 'condition').read_text()}")
    case ["logs", "--follow", _]:
        print((STATE / "pods.log").read_text())
    case ["get" | "delete", *_]:
        pass
    case wrong:
        refuse("kubectl", f"cannot do {wrong}")
