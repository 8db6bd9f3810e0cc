"""`srun`: runs the tasks of a job, all on this machine, with the variables by which jax finds the others."""

import os
import sys

from shared import options, record, run_together

record("srun")
_, command = options("srun", sys.argv[1:], {"kill-on-bad-exit", "wait", "cpus-per-task", "gpu-bind"})
nodes, per_node = int(os.environ["SLURM_JOB_NUM_NODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
tasks = [
    {
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_NTASKS": str(nodes * per_node),
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task % per_node),
    }
    for task in range(nodes * per_node)
]
sys.exit(max(run_together([command] * len(tasks), tasks)))
