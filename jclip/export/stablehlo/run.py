"""Runs a model that `jclip export --format stablehlo` wrote. Needs jax, numpy and safetensors, but not jclip.

python run.py               # computes the examples beside this file and compares them with jclip's features

from run import ids_of, load, pixels_of
model = load("folder")
texts_nd = model["text"](ids_of("folder", ["一只猫"]))          # needs tokenizers
images_nd = model["image"](pixels_of("folder", ["cat.jpg"]))  # needs Pillow
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

FUNCTION, WEIGHTS, EXAMPLES = ".stablehlo", ".safetensors", "examples.safetensors"


class Tower:
    """Function of one tower, with its weights on the default device.

    Args:
      folder: folder of the export.
      name: "image" or "text".
    """

    def __init__(self, folder: str | Path, name: str):
        serialised = (Path(folder) / f"{name}{FUNCTION}").read_bytes()
        self._function = jax.jit(jax.export.deserialize(bytearray(serialised)).call)
        self._weights = jax.device_put(load_file(Path(folder) / f"{name}{WEIGHTS}"))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the features of a batch, float32 (n, d), L2-normalised. Compiles each new shape once."""
        return np.asarray(self._function(self._weights, inputs))


def load(folder: str | Path) -> dict[str, Tower]:
    """Returns the towers of an export by name."""
    return {file.stem: Tower(folder, file.stem) for file in sorted(Path(folder).glob(f"*{FUNCTION}"))}


def ids_of(folder: str | Path, texts: Sequence[str]) -> np.ndarray:
    """Returns the token ids of texts, int32 (n, l), padded to the longest."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    return np.array([encoded.ids for encoded in tokenizer.encode_batch(list(texts))], np.int32)


def pixels_of(folder: str | Path, files: Sequence[str | Path]) -> np.ndarray:
    """Returns images of files, uint8 (n, size, size, 3): the steps of preprocessing.json before normalisation."""
    from PIL import Image

    steps = json.loads((Path(folder) / "preprocessing.json").read_text(encoding="utf-8"))["steps"]
    images = []
    for file in files:
        image: Any = Image.open(file)
        for step in steps:
            image = _after(image, step)
        images.append(np.asarray(image))
    return np.stack(images)


def _after(image: Any, step: dict[str, Any]) -> Any:
    """Returns an image after one step; unchanged by the steps that the function of the image tower contains."""
    from PIL import Image, ImageOps

    name = step["step"]
    if name == "decode":
        return ImageOps.exif_transpose(image) if step["exif_orientation"] == "apply" else image
    if name == "trim_transparent":
        return _trimmed(image)
    if name == "flatten_alpha":
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = Image.alpha_composite(
                Image.new("RGBA", image.size, tuple(step["background"])), image.convert("RGBA")
            )
        return image.convert("RGB")
    if name == "resize":
        height_width = step.get("height_width")
        width, height = image.size
        if height_width is None:
            width, height = (int(step["shorter_side"] * side / min(image.size)) for side in image.size)
        else:
            height, width = height_width
        return image.resize((width, height), Image.Resampling.BICUBIC)
    if name == "centre_crop":
        height, width = step["height_width"]
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))
    if name == "to_rgb":
        image.info.pop("transparency", None)
        return image.convert("RGB")
    return image


def _trimmed(image: Any) -> Any:
    """Returns an image without its transparent borders, in the centre of a transparent square."""
    from PIL import Image

    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    box = image.getchannel("A").getbbox()
    if box is None:
        return image
    drawn = image.crop(box)
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square


def main() -> int:
    """Compares the examples with jclip's features; returns 1 if a cosine similarity is below 0.999."""
    folder = Path(__file__).parent
    examples, worst = load_file(folder / EXAMPLES), 1.0
    for name, tower in load(folder).items():
        found, expected = tower(examples[f"{name}/inputs"]), examples[f"{name}/features"]
        cosine = float((found * expected).sum(axis=1).min())
        difference = np.abs(found - expected).max()
        print(f"{name}: largest difference {difference:.1e}, smallest cosine similarity {cosine:.7f}")
        worst = min(worst, cosine)
    return int(not worst > 0.999)


if __name__ == "__main__":
    sys.exit(main())
