"""Checkpoints at full size with random weights and the makers' vocabularies, in the layouts of the published ones."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from jclip.bundle import tensor_shapes
from jclip.conversion.families import family_named
from jclip.conversion.mapping import export_tensors
from jclip.data.sources.synthetic import write_tokenizer
from jclip.io.safetensors import write_safetensors
from jclip.io.tensors import Lazy
from jclip.models import zoo
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import checkpoints, real_models

_BLOCK = 1 << 20
File = Literal["model.safetensors", "pytorch_model.bin", "clip_cn.pt", "CLIP.pt"]
"""safetensors; a pickle of a state dict; cn_clip's training checkpoint; OpenAI's TorchScript archive."""


def config_of(name: str) -> Any:
    """Returns the configuration of a model or a text encoder of the zoo."""
    return TextEncoderConfig(zoo.get_text_encoder(name)) if name in zoo.TEXT_ENCODERS else zoo.get_config(name)


def parameters(config: Any) -> dict[str, Lazy]:
    """Returns a bundle's tensors, drawn when they are read."""
    return {path: _random(path, shape) for path, shape in tensor_shapes(config).items()}


def tensors(name: str, family: str) -> dict[str, Lazy]:
    """Returns the same tensors in a family's layout."""
    keys = real_models.shapes(name, family)  # from which the table learns a ResNet's blocks
    return export_tensors(family_named(family).table(keys), parameters(config_of(name)))


def write(name: str, family: str, folder: Path, file: File = "model.safetensors") -> Path:
    """Writes a checkpoint of a published model; returns the path to convert.

    Args:
      name: of a model of the zoo.
      family: whose layout to write.
      folder: to create.
      file: name, which decides the format. safetensors streams the weights; the others hold all of them in memory.
    """
    folder.mkdir(parents=True)
    lazy = tensors(name, family)
    if file == "model.safetensors":
        write_safetensors(folder / file, lazy, {"format": "pt"})
    else:
        _save({key: torch.from_numpy(tensor.read()) for key, tensor in lazy.items()}, name, family, folder / file)
    if family in ("cn-clip", "openai-clip", "open-clip"):
        return folder / file  # without a configuration, and the vocabulary is in the makers' package
    with torch.device("meta"):
        real_models.build(name, family).config.save_pretrained(folder)
    kind = family_named(family).tokenizer
    if kind in ("wordpiece", "bert"):  # Chinese-CLIP's vocabulary is its encoder's own
        (folder / "vocab.txt").write_bytes(real_models.CN_CLIP_VOCABULARY.read_bytes())
    elif kind == "xlmr":
        _write_large_vocabulary(folder, config_of(name).text.vocab_size)
    return folder


def _save(state: dict[str, torch.Tensor], name: str, family: str, file: Path) -> None:
    """Saves the weights in one of PyTorch's formats, through the makers' own class where they published them so."""
    if file.name == "CLIP.pt":
        model = real_models.build(name, family, cast_dtype=torch.float16)
        model.load_state_dict(real_models.with_counters(name, family, state))
        checkpoints.save_openai(model.eval(), file)
    elif file.name == "clip_cn.pt":
        model = real_models.cn_clip_with(name, real_models.with_counters(name, family, state))
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        torch.save({"epoch": 15, "step": 0, "name": name, "state_dict": state}, file)
    else:
        torch.save(state, file)


def _write_large_vocabulary(folder: Path, size: int) -> None:
    """Writes a small XLM-R tokenizer, filled up to the published 250,002 pieces with pieces that no text has."""
    made = folder.parent / f"{folder.name}-xlmr"
    write_tokenizer("xlmr", made)
    said = json.loads((made / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = said["model"]["vocab"]
    mask = pieces.pop()
    pieces += [[f"▁piece{number}", -20.0] for number in range(size - 1 - len(pieces))]
    pieces.append(mask)
    said["added_tokens"] = [
        token | ({"id": size - 1} if token["content"] == mask[0] else {}) for token in said["added_tokens"]
    ]
    (folder / "tokenizer.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")


def _random(path: str, shape: tuple[int, ...]) -> Lazy:
    """Returns values as large as trained ones, so that states neither vanish nor explode in 32 layers."""
    name = path.rsplit("/", 1)[-1]
    seed = [ord(letter) for letter in path]
    centre, spread = {"scale": (1.0, 0.1), "bias": (0.0, 0.05), "var": (1.0, 0.1), "mean": (0.0, 0.1)}.get(
        name, (0.0, 0.03)
    )
    if path == "logit_scale":
        centre, spread = 4.6, 0.0
    if len(shape) == 4:  # smaller values would let a ResNet's biases outweigh the image
        spread = (2 / math.prod(shape[:3])) ** 0.5

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

    size = math.prod(shape)
    return Lazy(shape, np.dtype(np.float32), partial(span, 0, size), span)
