"""Checkpoints at full size with random weights, written as a stream: no model of that size is ever in memory here."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from conversion import hf_config
from conversion.engine import export_tensors
from conversion.export import _resnet_keys
from conversion.families import family_named
from jclip.bundle import tensor_shapes
from jclip.data.synthetic import write_tokenizer
from jclip.models import zoo
from jclip.models.resnet import ResNetConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.tensors import Lazy, write_safetensors

_BLOCK = 1 << 20


def write(name: str, family: str, folder: Path) -> Path:
    """A checkpoint of a published model in a family's layout, with a small vocabulary; returns what to convert.

    Args:
      name: of the zoo.
      family: in whose layout.
      folder: new.
    """
    folder.mkdir(parents=True)
    config: Any = TextEncoderConfig(zoo.get_text_encoder(name)) if name in zoo.TEXT_ENCODERS else zoo.get(name)
    image = getattr(config, "image", None)
    keys = _resnet_keys(image.layers) if isinstance(image, ResNetConfig) else ()
    tensors = {path: _random(path, shape) for path, shape in tensor_shapes(config).items()}
    kind = family_named(family)
    write_safetensors(folder / "model.safetensors", export_tensors(kind.table(keys), tensors), {"format": "pt"})
    made = folder / "made"
    write_tokenizer(kind.tokenizer, made)
    for file in ("vocab.txt", "merges.txt", "tokenizer.json"):
        if (made / file).is_file():
            (made / file).rename(folder / file)
    if family in ("altclip", "chinese-clip", "clip"):
        _write_json(folder / "config.json", hf_config.dual(config))
    elif family in ("bert", "xlm-r"):
        _write_json(folder / "config.json", hf_config.encoder(config, {"xlm-r": "xlm-roberta"}.get(family, family)))
    return folder


def _write_json(file: Path, content: Any) -> None:
    import json

    file.write_text(json.dumps(content))


def _random(path: str, shape: tuple[int, ...]) -> Lazy:
    """Values as large as trained ones: the states neither vanish nor explode through 32 layers."""
    name = path.rsplit("/", 1)[-1]
    seed = [ord(letter) for letter in path]
    centre, spread = {"scale": (1.0, 0.1), "bias": (0.0, 0.05), "var": (1.0, 0.1), "mean": (0.0, 0.1)}.get(
        name, (0.0, 0.03)
    )
    if path == "logit_scale":
        centre, spread = 4.6, 0.0

    def draw(seed: list[int], count: int) -> np.ndarray:
        values = np.random.default_rng(seed).standard_normal(count, np.float32)
        if name == "var":
            values = np.clip(values, -3, 3)
        return values * np.float32(spread) + np.float32(centre)

    def span(first: int, last: int) -> Iterator[np.ndarray]:
        for block in range(first // _BLOCK, -(-last // _BLOCK)):
            values = draw([*seed, block], _BLOCK)
            start = block * _BLOCK
            yield values[max(first - start, 0) : min(last - start, _BLOCK)]

    size = int(np.prod(shape, dtype=np.int64))
    return Lazy(shape, np.dtype(np.float32), partial(span, 0, size), span)
