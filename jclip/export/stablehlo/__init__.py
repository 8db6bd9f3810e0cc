"""The format "stablehlo": one serialised jax function for each tower, with its weights beside it."""

from pathlib import Path
from typing import Any

from jclip.export.formats import ExportOptions, Format, Say, register
from jclip.inference import Model


def write(model: Model, folder: Path, options: ExportOptions, say: Say) -> dict[str, Any]:
    """Writes a model's files, see `Format.write`."""
    from jclip.export.stablehlo.writing import write_files

    del options
    return write_files(model, folder, say)


FORMAT = register(
    Format(
        "stablehlo",
        "StableHLO for jax on CPUs, GPUs and TPUs, weights, and run.py to load them",
        write,
        modules=("safetensors",),  # of run.py, which also compares the functions with the model
    )
)
