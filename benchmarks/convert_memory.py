"""Peak memory of conversions at full size, relative to the size of the checkpoint. Exits with 1 above a limit.

    python -m benchmarks.convert_memory              about 11 GB of disk, some minutes

Weights are random, and vocabularies as large as the real ones. A conversion includes the layer-by-layer comparison
with the PyTorch model. Each command runs in its own process, whose peak resident memory is printed twice: in full, and
less the peak of the same command on a tiny model, which is that of Python and the libraries.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.remote import call_apart

_MOST, _MOST_WITHOUT_LIBRARIES = 1.3, 1.5
"""Maximum ratio: of the full peak for AltCLIP-L, and of the peak without libraries for the smaller model."""
_RUNS = (
    ("altclip", "altclip", "model.safetensors", "hf"),
    ("altclip", "altclip", "pytorch_model.bin", None),
    ("chinese-clip-vit-l-14", "cn-clip", "clip_cn.pt", "cn-clip"),
)
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class Took(NamedTuple):
    """Peak memory of a command in bytes, and its seconds."""

    peak: int
    seconds: float


def main() -> int:
    """Measures, prints a table, and returns the exit code."""
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        small = _small(place / "small")
        print(f"| command | GB | peak, GB | of the checkpoint | without libraries | seconds |\n|---|{'---:|' * 5}")
        for name, family, file, to in _RUNS:
            source, bundle = place / "source", place / "bundle"
            # Not in this process, because the peak of a command starts at the size of its parent.
            call_apart(_write, name, family, source, file)
            size = (source / file).stat().st_size
            given = source / file if family == "cn-clip" else source
            commands = {"convert": (str(given), str(bundle))}
            if to:
                commands[f"--to {to}"] = (str(bundle), str(place / "out"), "--to", to)
            for command, arguments in commands.items():
                took = _convert(*arguments)
                ratio, net = took.peak / size, (took.peak - small[command]) / size
                what = f"{command} {name}" + (f", {file}" if command == "convert" else "")
                figures = f"{size / 1e9:.2f} | {took.peak / 1e9:.2f} | {ratio:.2f} | {net:.2f} | {took.seconds:.0f}"
                print(f"| {what} | {figures} |", flush=True)
                found, most = (ratio, _MOST) if name == "altclip" else (net, _MOST_WITHOUT_LIBRARIES)
                if found > most:
                    print(f"{what}: more than {most} times the checkpoint", file=sys.stderr)
                    code = 1
            for made in (source, bundle, place / "out"):
                shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
    return code


def _small(place: Path) -> dict[str, int]:
    """Returns the peak of each command for a tiny model."""
    place.mkdir()
    call_apart(_write_small, place)
    convert = _convert(str(place / "source"), str(place / "bundle"))
    hf = _convert(str(place / "bundle"), str(place / "out"), "--to", "hf")
    cn_clip = _convert(str(place / "resnet"), str(place / "out.pt"), "--to", "cn-clip")
    return {"convert": convert.peak, "--to hf": hf.peak, "--to cn-clip": cn_clip.peak}


def _convert(*arguments: str) -> Took:
    """Runs `jclip convert`."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "jclip.cli", "convert", *arguments, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"jclip convert {' '.join(arguments)} failed")
    return Took(usage.ru_maxrss * _UNIT, time.perf_counter() - began)


def _write(name: str, family: str, folder: Path, file: str) -> None:
    from jclip.conversion.parity import peers

    peers.make_importable()
    from tests.conversion import full_size

    full_size.write(name, family, folder, file)  # type: ignore[arg-type]


def _write_small(place: Path) -> None:
    from tests.conversion import broken

    broken.write_checkpoint(place / "source", "altclip", broken.ALTCLIP)
    broken.write_bundle(place / "resnet", "chinese-clip", broken.RN50)


if __name__ == "__main__":
    sys.exit(main())
