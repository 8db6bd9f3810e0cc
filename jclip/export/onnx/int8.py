"""Dynamic quantisation of the written graphs to 8 bits, and the gate that it must pass."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from jclip.errors import JclipError
from jclip.export.formats import ExportOptions, Say
from jclip.export.onnx.graph import EXTERNAL_BYTES, data_file
from jclip.export.onnx_model import OnnxModel, Tower, file_name
from jclip.export.record import Record

_KINDS = ["MatMul", "Gather"]
"""Operators that are quantised: products with weights, and tables of embeddings. onnxruntime has no fast convolution of
dynamically quantised activations, so a ResNet's convolutions stay in float32."""


def quantise(
    folder: Path,
    record: Record,
    batches: Mapping[str, np.ndarray],
    options: ExportOptions,
    say: Say,
    *,
    external_bytes: int = EXTERNAL_BYTES,
) -> dict[str, Any]:
    """Replaces the graphs in a folder by quantised ones, and returns the entries of the record.

    `record` is that of the float32 graphs. The files of each tower are updated in it.

    Weights become int8, with a scale for each output channel, of which they use seven bits. Processors without VNNI add
    two products of uint8 activations and int8 weights in 16 bits, which would overflow with eight. Activations are
    quantised for each batch, while it runs. `batches` are a batch of inputs for each tower, on which the
    two graphs are compared.

    Raises:
      JclipError: a figure of the gate falls by more than `options.max_loss`.
    """
    before = None if options.gate is None else _measured(options, folder, record, say, "in float32")
    cosines = {}
    for name in record.config.towers:
        say(f"quantising the {name} tower")
        file = folder / file_name(name)
        wanted_bd = Tower(file)(batches[name])
        record.own["towers"][name]["files"] = _quantise_file(file, external_bytes)
        cosines[name] = float((wanted_bd * Tower(file)(batches[name])).sum(axis=1).min())
    described: dict[str, Any] = {
        "method": "dynamic",
        "weights": "QInt8 of 7 bits, per channel",
        "operators": _KINDS,
        "lowest_cosine": cosines,
    }
    if options.gate is None or before is None:
        return described | {"gate": "none: --ungated"}
    quantised = replace(record, own={**record.own, "int8": described})
    after = _measured(options, folder, quantised, say, "in int8")
    # Rounded, because a fall from 40 to 39 of 100 queries is one point, not more.
    losses = {name: round(100 * (before[name] - after[name]), 9) for name in before}
    worst = max(losses, key=losses.__getitem__)
    if losses[worst] > options.max_loss:
        raise JclipError(
            f"int8 lowers {worst} on {options.gate.name} from {before[worst]:.1%} to {after[worst]:.1%}, by more than "
            f"{options.max_loss:g} percentage points: export without --int8, or allow it with --max-loss "
            f"{_rounded_up(losses[worst])}"
        )
    return described | {
        "gate": {"data": options.gate.name, "max_loss": options.max_loss, "before": dict(before), "after": dict(after)}
    }


def _measured(options: ExportOptions, folder: Path, record: Record, say: Say, how: str) -> Mapping[str, float]:
    assert options.gate is not None
    say(f"measuring the gate {how}")
    return options.gate(OnnxModel(folder, record))


def _rounded_up(loss: float) -> str:
    return f"{loss + 0.05:.1f}"


def _quantise_file(file: Path, external_bytes: int) -> list[str]:
    """Replaces a graph, and its weights beside it, by a quantised one. Returns the names of its files."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    old = [file, *(each for each in (data_file(file),) if each.exists())]
    beside = sum(each.stat().st_size for each in old) / 4 > external_bytes
    with TemporaryDirectory(dir=file.parent) as place, _without_advice():
        quantize_dynamic(
            file,
            Path(place, file.name),
            op_types_to_quantize=_KINDS,
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # to seven bits
            use_external_data_format=beside,
        )
        for each in old:
            each.unlink()
        return sorted(each.rename(file.parent / each.name).name for each in Path(place).iterdir())


@contextmanager
def _without_advice() -> Iterator[None]:
    """Drops messages to the root logger in the block: onnxruntime's advice to preprocess graphs of other exporters."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    logging.getLogger().addFilter(drop)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(drop)
