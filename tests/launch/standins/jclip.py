"""`jclip` of this tree, or, with STANDIN_CODES=75,0, a program that ends with those codes, one after the other."""

import os
import re
import signal
import sys

from shared import STATE, record

KEPT = re.compile(r"JCLIP_(COORDINATOR|PROCESS)|SLURM_|CUDA_|JAX_LOCAL")


def scripted(codes: list[str]) -> int:
    """Returns the next code of this process; "wait" waits for SIGTERM and gives 75, like a run that has saved."""
    process = os.environ.get("JCLIP_PROCESS") or os.environ.get("SLURM_PROCID", "0")
    count = STATE / f"starts-{process}"
    starts = int(count.read_text()) if count.exists() else 0
    count.write_text(str(starts + 1))
    code = codes[min(starts, len(codes) - 1)].split("|")
    code = code[min(int(process), len(code) - 1)]
    if code == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        (STATE / f"waiting-{process}").touch()
        signal.pause()
    return int(code)


environment = {name: value for name, value in os.environ.items() if KEPT.match(name)}
record("jclip", environment=environment, folder=os.getcwd(), pid=os.getpid())
if "STANDIN_CODES" in os.environ:
    sys.exit(scripted(os.environ["STANDIN_CODES"].split(",")))
os.execv(sys.executable, [sys.executable, "-m", "jclip.cli", *sys.argv[1:]])
