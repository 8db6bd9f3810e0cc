"""Small checkpoints to break, made from our own tables and random numbers without another library."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jclip import rules
from jclip.bundle import Bundle, save_bundle, split_statistics, tensor_shapes
from jclip.conversion.exporting import depth_keys
from jclip.conversion.families import family_named
from jclip.conversion.hf.config import hf_config
from jclip.conversion.mapping import export_tensors
from jclip.conversion.towers.bert import bert_to_hf
from jclip.data.sources.synthetic import write_tokenizer
from jclip.images.preprocess import Preprocessing
from jclip.io.safetensors import write_safetensors
from jclip.io.tensors import Lazy
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.vit import VitConfig
from jclip.names import TokenizerKind
from jclip.tokenizers.text import load_tokenizer

Tensors = dict[str, np.ndarray]

WEIGHTS = "model.safetensors"
IMAGE_KEY, TEXT_KEY = "vision_model.encoder.layers.1.mlp.fc1.weight", "text_model.encoder.layer.1.output.LayerNorm.bias"

BERT = BertConfig(140, 36, 2, 3, 60, 24, 2, pad_id=0, layer_norm_eps=1e-12)
XLM_R = BertConfig(140, 36, 2, 3, 60, 26, 1, pad_id=1, layer_norm_eps=1e-5, position_offset="after_padding")
VIT, RESNET = VitConfig(30, 10, 40, 3, 5, mlp_ratio=2), ResNetConfig(64, (1, 1, 1, 1), 8, 4)
CHINESE_CLIP = DualEncoderConfig(VIT, BERT, 13)
ALTCLIP = DualEncoderConfig(VIT, XLM_R, 13, head_width=22)
RN50 = DualEncoderConfig(RESNET, replace(BERT, width=128, heads=2), 13)  # heads as wide as cn_clip's
CLIP = DualEncoderConfig(VitConfig(30, 10, 64, 2, 1), ClipTextConfig(640, 20, 64, 2, 1), 13)
KINDS: dict[str, TokenizerKind] = {
    "chinese-clip": "wordpiece",
    "altclip": "xlmr",
    "bert": "wordpiece",
    "open-clip": "clip_bpe",
}


def parameters(config: Any) -> Tensors:
    """Returns random parameters of a bundle."""
    draw, found = np.random.default_rng(0), {}
    for path, shape in tensor_shapes(config).items():
        noise = draw.standard_normal(shape).astype(np.float32)
        found[path] = 1 + noise / 8 if path.endswith("scale") else np.abs(noise) if path.endswith("var") else noise / 4
    return found


def state(family: str, config: Any) -> Tensors:
    """Returns the same parameters under the keys of a family's checkpoint."""
    lazy = {path: Lazy.of(value) for path, value in parameters(config).items()}
    return {
        key: tensor.read()
        for key, tensor in export_tensors(family_named(family).table(depth_keys(config)), lazy).items()
    }


def write_vocabulary(kind: TokenizerKind, folder: Path) -> Path:
    """Writes the file that a tokenizer's makers ship, and returns its path."""
    made = folder / f"made-{kind}"
    write_tokenizer(kind, made)
    name = {"wordpiece": "vocab.txt", "xlmr": "tokenizer.json", "clip_bpe": "merges.txt"}[kind]
    return (made / name).rename(folder / name)


def write_checkpoint(folder: Path, family: str, config: Any) -> Path:
    """Writes a folder in the hub's layout."""
    folder.mkdir(parents=True)
    write_vocabulary(KINDS[family], folder)
    write_safetensors(folder / "model.safetensors", state(family, config))
    if family != "open-clip":
        bert = {"model_type": "bert", **bert_to_hf(config.text)}
        said = bert if family == "bert" else hf_config(family_named(family).hf, config)
        (folder / "config.json").write_text(json.dumps(said))
    return folder


def write_bundle(folder: Path, family: str, config: Any) -> Path:
    """Writes a bundle without a passport, as training does."""
    params, stats = map(rules.tree_from_paths, split_statistics(parameters(config)))
    tokenizer = load_tokenizer(write_vocabulary(KINDS[family], folder.parent))
    resize = "squash" if family == "chinese-clip" else "crop"
    pictures = None if isinstance(config, TextEncoderConfig) else Preprocessing(config.image.image_size, resize=resize)
    save_bundle(Bundle(config, params, tokenizer, pictures, 16, stats), folder)
    return folder


def change_json(file: Path, change: Callable[[Any], None]) -> None:
    """Changes the contents of a JSON file."""
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))


def listing(folder: Path) -> Mapping[str, bytes | str | None]:
    """Returns everything in a folder, hidden names included, with its contents."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        content: Any = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = content
    return found


def started(*arguments, environment=()):
    """Starts a command as a process that reacts to Ctrl-C."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from jclip.cli import main; "
    return subprocess.Popen(
        [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(environment),
        cwd=Path(__file__).parents[2],
    )


@contextmanager
def full(folder: Path, room: int) -> Iterator[None]:
    """Mounts a disk with `room` bytes at `folder`; limits the size of files if mounting is not allowed."""
    with _mounted(folder, f"size={room}") as there:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if not there:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mounts a read-only disk at `folder`; links to /proc if mounting is not allowed."""
    with _mounted(folder, "ro") as there:
        if not there:
            folder.rmdir()
            folder.symlink_to("/proc")
        yield


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[bool]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        there = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        there = False
    try:
        yield there
    finally:
        if there:
            subprocess.run(["umount", "-l", str(folder)], check=True)
