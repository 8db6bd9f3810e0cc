"""The format "onnx": one graph for each tower, the tokenizer, and the preprocessing as a list of steps."""

from pathlib import Path
from typing import Any

from jclip.export.formats import ExportOptions, Format, Say, register
from jclip.inference import Model


def write(model: Model, folder: Path, options: ExportOptions, say: Say) -> dict[str, Any]:
    """Writes a model's files, see `Format.write`."""
    from jclip.export.onnx.writing import write_files

    return write_files(model, folder, options, say)


FORMAT = register(
    Format(
        "onnx",
        "ONNX graphs, tokenizer.json and preprocessing.json",
        write,
        options=frozenset({"with_preprocessing", "int8"}),
        modules=("onnx", "onnxruntime"),
    )
)
