"""`scontrol requeue JOB`: leaves a note for sbatch."""

import os
import sys

from shared import STATE, record, refuse

record("scontrol")
if sys.argv[1:] != ["requeue", os.environ["SLURM_JOB_ID"]]:
    refuse("scontrol", f"cannot do {sys.argv[1:]}")
(STATE / f"requeue-{sys.argv[2]}").touch()
