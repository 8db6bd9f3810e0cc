"""Time from the start of a process to its first feature: jclip, cold and warm, beside transformers.

    python -m benchmarks.first_answer                  about 3 GB of disk, ten minutes
    python -m benchmarks.first_answer --rounds 2

The model is a Chinese-CLIP ViT-B/16 with random weights, as transformers' folder and as jclip's bundle of it. Every
contender is a fresh process that encodes one text or one photograph and prints the feature. Features are compared.
"cold" has no compiled programs; "warm" has those of an earlier process, as every jclip command keeps them. "one tower"
loads only the tower that it needs. The contenders take turns; a ratio compares the two in the same round. Files are in
the page cache of the system, because everything has been read once before.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

_TEXT = "一只可爱的橘猫坐在窗台上"
_AGREE = 1e-5  # largest difference of a component
_JCLIP = """
import sys
from jclip.cache.programs import programs_kept

with programs_kept(print):
    import jclip

    what, source, tower = sys.argv[1:4]
    model = jclip.load(source, tower=tower or None)
    feature = (model.encode_text if what == "text" else model.encode_image)([sys.argv[4]])[0]
    print(*feature)
"""
_TRANSFORMERS = """
import sys
import torch
from jclip.conversion.parity import peers

peers.make_importable()  # torchvision, which transformers imports
from transformers import ChineseCLIPModel

what, source, _, given = sys.argv[1:5]
model = ChineseCLIPModel.from_pretrained(source).eval()
with torch.inference_mode():
    if what == "text":
        from transformers import BertTokenizerFast

        inputs = BertTokenizerFast.from_pretrained(source)([given], return_tensors="pt")
        feature = model.get_text_features(**inputs).pooler_output[0]
    else:
        from PIL import Image
        from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil

        published = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
        inputs = ChineseCLIPImageProcessorPil(**published)(Image.open(given).convert("RGB"), return_tensors="pt")
        feature = model.get_image_features(**inputs).pooler_output[0]
print(*torch.nn.functional.normalize(feature, dim=0).tolist())
"""


@dataclass(frozen=True)
class Options:
    """Settings of the comparison.

    Attributes:
      rounds: number of turns of each contender.
    """

    rounds: int = 5


@dataclass(frozen=True)
class Contender:
    """A way to the first feature.

    Attributes:
      name: name in the table.
      program: Python program that prints the feature.
      warm: True to keep compiled programs between its processes.
      alone: True to load one tower.
    """

    name: str
    program: str
    warm: bool = False
    alone: bool = False


CONTENDERS = (
    Contender("transformers", _TRANSFORMERS),
    Contender("jclip, cold", _JCLIP),
    Contender("jclip, warm", _JCLIP, warm=True),
    Contender("jclip, warm, one tower", _JCLIP, warm=True, alone=True),
)


def main() -> int:
    """Measures, prints a table, and returns the exit code: 1 if features differ."""
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sources = _write(place)
        given = {"text": _TEXT, "image": str(_photograph(place / "photo.jpg"))}
        seconds: dict[tuple[str, str], list[float]] = {}
        for turn in range(-1, options.rounds):  # the first turn reads all files and compiles, and does not count
            for what, item in given.items():
                expected = None
                for number, contender in enumerate(CONTENDERS):
                    kept = place / ("warm" if contender.warm else f"cold {what} {turn}")
                    took, feature = _first(contender, what, sources, item, kept)
                    expected = feature if expected is None else expected
                    if np.abs(feature - expected).max() > _AGREE:
                        print(f"{contender.name}: another {what} feature than {CONTENDERS[0].name}", file=sys.stderr)
                        return 1
                    if turn >= 0:
                        seconds.setdefault((what, contender.name), []).append(took)
                    print(f"{turn} {what} {number} {took:.2f}", file=sys.stderr)
    _print(seconds)
    return 0


def _first(
    contender: Contender, what: str, sources: dict[str, Path], item: str, kept: Path
) -> tuple[float, np.ndarray]:
    """Returns the seconds from the start of a process to the end of its output, and the feature."""
    source = sources["transformers" if contender.program is _TRANSFORMERS else "jclip"]
    command = [sys.executable, "-c", contender.program, what, str(source), what if contender.alone else "", item]
    environment = os.environ | {"JCLIP_CACHE": str(kept), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{contender.name} failed:\n{done.stderr}")
    return took, np.array(done.stdout.split(), np.float64)


def _print(seconds: dict[tuple[str, str], list[float]]) -> None:
    print("| first feature | contender | seconds | lowest | highest | transformers' time over its |")
    print("|---|---|---:|---:|---:|---|")
    for (what, name), took in seconds.items():
        ratios = [first / own for first, own in zip(seconds[what, CONTENDERS[0].name], took, strict=True)]
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if name != CONTENDERS[0].name else ""
        figures = f"{statistics.median(took):.2f} | {min(took):.2f} | {max(took):.2f}"
        print(f"| {what} | {name} | {figures} | {statistics.median(ratios):.2f}{spread} |")


def _write(place: Path) -> dict[str, Path]:
    """Writes the model as transformers' folder and as a bundle, in another process that then gives back its memory."""
    program = """
import sys
from pathlib import Path

from jclip.conversion.parity import peers

peers.make_importable()
from jclip.conversion import convert
from tests.conversion import full_size

place = Path(sys.argv[1])
full_size.write("chinese-clip-vit-b-16", "chinese-clip", place / "transformers")
convert(str(place / "transformers"), place / "jclip", report=lambda what: None)
"""
    subprocess.run([sys.executable, "-c", program, str(place)], check=True)
    return {"transformers": place / "transformers", "jclip": place / "jclip"}


def _photograph(file: Path) -> Path:
    """Writes a JPEG of smooth noise, 640 x 480 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(file, quality=90)
    return file


if __name__ == "__main__":
    sys.exit(main())
