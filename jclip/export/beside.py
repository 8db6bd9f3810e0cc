"""Files beside exported graphs: the tokenizer, and the preprocessing as a list of steps for any language.

tokenizer.json       the tokenizer, for the `tokenizers` library and its ports
tokenizer/           jclip's own files of it, which `jclip.load` reads
preprocessing.json   the steps from an encoded image to the image tower's input, see `steps_of`
"""

from pathlib import Path
from typing import Any

from jclip.bundle import Bundle
from jclip.images.preprocess import Preprocessing
from jclip.plain import as_json

TOKENIZER_JSON, TOKENIZER, PREPROCESSING = "tokenizer.json", "tokenizer", "preprocessing.json"


def write_beside(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle's tokenizer, and its preprocessing if it has an image tower, into an existing folder."""
    bundle.tokenizer.save(folder / TOKENIZER)
    (folder / TOKENIZER_JSON).write_text(bundle.tokenizer.complete_json(bundle.context_length), encoding="utf-8")
    if bundle.preprocessing is not None:
        text = as_json({"version": 1, "steps": steps_of(bundle.preprocessing)}, indent=2)
        (folder / PREPROCESSING).write_text(text + "\n", encoding="utf-8")


def steps_of(preprocessing: Preprocessing) -> list[dict[str, Any]]:
    """Returns the steps in their order; docs/export.md describes each.

    >>> [step["step"] for step in steps_of(Preprocessing())]
    ['decode', 'resize', 'to_rgb', 'divide', 'normalise', 'transpose']
    """
    size = [preprocessing.size, preprocessing.size]
    bicubic = {"filter": "bicubic", "a": -0.5, "antialias": True, "rounds_to": "uint8"}
    steps: list[dict[str, Any]] = [{"step": "decode", "exif_orientation": preprocessing.orientation}]
    if preprocessing.background is not None:
        steps += [{"step": "trim_transparent"}] if preprocessing.trim else []
        steps += [{"step": "flatten_alpha", "background": list(preprocessing.background)}]
    if preprocessing.resize == "squash":
        steps += [{"step": "resize", "height_width": size, **bicubic}]
    else:
        steps += [
            {"step": "resize", "shorter_side": preprocessing.size, **bicubic},
            {"step": "centre_crop", "height_width": size},
        ]
    return [
        *steps,
        {"step": "to_rgb"},
        {"step": "divide", "by": 255},
        {"step": "normalise", "mean": list(preprocessing.mean), "std": list(preprocessing.std)},
        {"step": "transpose", "from": "HWC", "to": "CHW", "dtype": "float32"},
    ]
