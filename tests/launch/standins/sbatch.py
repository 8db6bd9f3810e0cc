"""`sbatch`: runs the job at once, and again as long as it asks to be requeued."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from shared import STATE, options, record

KNOWN = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "partition", "account",
    "constraint", "requeue", "signal", "open-mode", "chdir", "output",
}  # fmt: skip

record("sbatch")
given, (script, *arguments) = options("sbatch", sys.argv[1:], KNOWN)
number = random.randrange(1, 2**20)  # jax derives its port from it
# Slurm runs a copy of the script, so other files of its folder are not beside it.
(STATE / "spool").mkdir(exist_ok=True)
copy = shutil.copy(script, STATE / "spool" / "slurm_script")
output = Path(given["output"].replace("%x", given["job-name"]).replace("%j", str(number)))
print(f"Submitted batch job {number}")
restarts = 0
while True:
    environment = {
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NUM_NODES": given["nodes"],
        "SLURM_NTASKS_PER_NODE": given["ntasks-per-node"],
        "SLURM_RESTART_COUNT": str(restarts),
        "SLURM_CPUS_PER_TASK": given.get("cpus-per-task", "1"),
    }
    with output.open("a") as log:
        job = subprocess.run(
            [copy, *arguments], env={**os.environ, **environment}, cwd=given["chdir"], stdout=log, stderr=log
        )
    asked = STATE / f"requeue-{number}"
    if not asked.exists():
        break
    asked.unlink()
    restarts += 1
(STATE / "job.code").write_text(str(job.returncode))
