"""README.md of an ONNX export."""

from collections.abc import Iterator
from pathlib import Path

from jclip.export.beside import PREPROCESSING, TOKENIZER, TOKENIZER_JSON
from jclip.export.record import RECORD, Record
from jclip.images.preprocess import Preprocessing


def write_readme(folder: Path, record: Record) -> None:
    """Writes the README of an export: its files, and a program that needs onnxruntime, tokenizers and Pillow only."""
    (folder / "README.md").write_text("\n".join(_lines(record)) + "\n", encoding="utf-8")


def program(record: Record) -> list[str]:
    """Returns the lines of a program that encodes images and texts, and runs in the export's folder without jclip."""
    preprocessing, towers = record.preprocessing, record.own["towers"]
    turned = preprocessing is not None and preprocessing.orientation == "apply"
    pillow = [] if preprocessing is None else [f"from PIL import Image{', ImageOps' * turned}"]
    lines = ["import numpy as np", "import onnxruntime", *pillow, "from tokenizers import Tokenizer", ""]
    if preprocessing is not None:
        inside = towers["image"]["input"]["dtype"] == "uint8"
        lines += [
            'image = Image.open("cat.jpg")',
            *(["image = ImageOps.exif_transpose(image)"] if turned else []),
            *(_opaque(preprocessing) if inside else [*_opaque(preprocessing), *_resized(preprocessing)]),
            'pixels = np.asarray(image.convert("RGB"))[None]',
            *([] if inside else _normalised(preprocessing)),
            *_run("image", record, "pixels"),
        ]
    features = "text" if preprocessing is None else "image"
    return [
        *lines,
        f'encoded = Tokenizer.from_file("{TOKENIZER_JSON}").encode_batch(["一只猫", "a red apple"])',
        "ids = np.array([each.ids for each in encoded])",
        *_run("text", record, "ids"),
        f"print({record.similarity_scale:.6g} * {features}_features @ text_features.T)",
    ]


def _lines(record: Record) -> Iterator[str]:
    yield "# A model for onnxruntime"
    yield ""
    yield f"Written by `jclip export` from the model {record.identity[:16]}; `{RECORD}` has the facts. jclip's"
    yield "docs/export.md explains the files. `jclip.load` and jclip's commands read this folder too."
    yield ""
    yield "| file | contents |"
    yield "|---|---|"
    for name, tower in record.own["towers"].items():
        takes, gives = (
            f"`{side['name']}` {side['dtype']} ({', '.join(map(str, side['shape']))})"
            for side in (tower["input"], tower["output"])
        )
        files = ", ".join(f"`{file}`" for file in tower["files"])
        yield f"| {files} | {name} tower, opset {record.own['opset']}: {takes} to {gives}, L2-normalised |"
    yield f"| `{TOKENIZER_JSON}` | for the `tokenizers` library; truncates to {record.context_length} tokens |"
    yield f"| `{TOKENIZER}/` | the same tokenizer as jclip reads it |"
    if record.preprocessing is not None:
        yield f"| `{PREPROCESSING}` | the steps from an encoded image to the input of the image tower |"
    yield ""
    yield "This program runs here with onnxruntime, numpy, tokenizers and Pillow:"
    yield ""
    yield "```python"
    yield from program(record)
    yield "```"


def _opaque(preprocessing: Preprocessing) -> list[str]:
    """Returns the lines that put a background under transparent pixels, and trim transparent borders."""
    if preprocessing.background is None:
        return []
    lines = ["if image.has_transparency_data:", '    image = image.convert("RGBA")']
    if preprocessing.trim:
        lines += [
            '    drawn = image.crop(image.getchannel("A").getbbox())',
            '    image = Image.new("RGBA", (max(drawn.size),) * 2)',
            "    image.paste(drawn, ((image.width - drawn.width) // 2, (image.height - drawn.height) // 2))",
        ]
    return [
        *lines,
        f'    image = Image.alpha_composite(Image.new("RGBA", image.size, {tuple(preprocessing.background)}), image)',
        'image = image.convert("RGB")',
    ]


def _resized(preprocessing: Preprocessing) -> list[str]:
    size = preprocessing.size
    if preprocessing.resize == "squash":
        return [f"image = image.resize(({size}, {size}), Image.Resampling.BICUBIC)"]
    return [
        f"width, height = (int({size} * side / min(image.size)) for side in image.size)",
        f"left, top = round((width - {size}) / 2), round((height - {size}) / 2)",
        "image = image.resize((width, height), Image.Resampling.BICUBIC)",
        f"image = image.crop((left, top, left + {size}, top + {size}))",
    ]


def _normalised(preprocessing: Preprocessing) -> list[str]:
    mean, std = tuple(preprocessing.mean), tuple(preprocessing.std)
    return [f"pixels = ((pixels / 255 - {mean}) / {std}).transpose(0, 3, 1, 2).astype(np.float32)"]


def _run(name: str, record: Record, values: str) -> list[str]:
    tower = record.own["towers"][name]
    file, takes = tower["files"][0], tower["input"]["name"]
    return [f'({name}_features,) = onnxruntime.InferenceSession("{file}").run(None, {{"{takes}": {values}}})']
