"""How much memory `jclip convert` takes for AltCLIP-L, against the size of the checkpoint.

    python -m benchmarks.convert_memory              about 8 GB of disk, some minutes

The checkpoint has random weights; the conversion includes the comparison with transformers, layer by layer.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conversion import full_size


def main() -> None:
    """Writes a checkpoint, converts it in a process of its own, and prints the peak of its resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="altclip")
    parser.add_argument("--family", default="altclip")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = full_size.write(arguments.model, arguments.family, Path(folder) / "source")
        size = (source / "model.safetensors").stat().st_size
        began = time.perf_counter()
        command = ["-m", "jclip.cli", "convert", str(source), str(Path(folder) / "bundle"), "--json"]
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    ratio = f"{peak / size:.2f} times the checkpoint's {size / 1e9:.2f} GB"
    print(f"{arguments.model}: peak {peak / 1e9:.2f} GB, {ratio}; {seconds:.0f} s")


if __name__ == "__main__":
    main()
