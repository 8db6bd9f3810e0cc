"""Programs that `benchmarks.inference` compares: jclip, its exports, and other libraries with the same weights.

A contender opens its own copy of a model and then prepares batches. A prepared batch is a function that computes its
features. Decoding and resizing are outside; jclip and its ONNX exports also tokenise and normalise inside.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

TOWERS = ("image", "text")
CONTEXT = 52
"""Maximum number of tokens; the captions are shorter."""

Batch = Callable[[], Any]
"""Function that computes the features of a batch, (n, d), L2-normalised or not."""


class Opened(NamedTuple):
    """Functions that prepare a batch: of uint8 images (n, size, size, 3), and of texts."""

    image: Callable[[np.ndarray], Batch]
    text: Callable[[Sequence[str]], Batch]


class Contender(NamedTuple):
    """One program.

    Attributes:
      name: name in the table.
      side: "ours" and "theirs" are compared; a "recipe" is ours in a runtime that jclip does not call.
      precision: name of the arithmetic.
      difference: maximum difference of a feature from jclip's in float32; a cosine distance for low precision.
      open: function of the folder that `write_models` filled, and the number of threads.
      modules: modules that it needs besides jclip's own.
      families: families of models that it reads.
      apart: True if it cannot be installed beside jclip's extras, so that it needs a folder of its own.
    """

    name: str
    side: Literal["ours", "theirs", "recipe"]
    precision: Literal["float32", "bfloat16", "int8"]
    difference: float
    open: Callable[[Path, int], Opened]
    modules: tuple[str, ...] = ()
    families: tuple[str, ...] = ("chinese-clip", "clip")
    apart: bool = False

    @property
    def is_installed(self) -> bool:
        """True if its modules are installed here."""
        return all(find_spec(module) is not None for module in self.modules)


def write_models(name: str, folder: Path) -> None:
    """Writes a published model's architecture with random weights, in every contender's format."""
    from jclip.export.exporting import export
    from jclip.export.formats import ExportOptions, format_named
    from jclip.loading import load

    write_weights(name, folder)
    model = load(folder / "bundle")
    formats = {
        "stablehlo": ("stablehlo", ExportOptions()),
        "onnx": ("onnx", ExportOptions()),
        "int8": ("onnx", ExportOptions(int8=True)),
    }
    for place, (form, options) in formats.items():
        export(model, folder / place, format_named(form), options, lambda step: None)


def write_weights(name: str, folder: Path) -> None:
    """Writes a published model's architecture with random weights, as a bundle and for the other libraries."""
    import jax

    from jclip.bundle import Bundle, save_bundle
    from jclip.conversion.exporting import export as convert
    from jclip.conversion.families import family_named
    from jclip.conversion.vocabulary import packaged_vocabulary
    from jclip.images.preprocess import Preprocessing
    from jclip.models.build import init_variables
    from jclip.models.zoo import get_config
    from jclip.tokenizers.text import load_tokenizer

    chinese = name.startswith("chinese-clip")
    config = get_config(name)
    vocabulary = packaged_vocabulary(family_named("cn-clip" if chinese else "clip"))
    if vocabulary is None:
        raise SystemExit('the vocabularies are missing: pip install "jclip[convert]"')
    preprocessing = Preprocessing(resize="squash" if chinese else "crop")
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    context = 52 if chinese else 77
    save_bundle(Bundle(config, params, load_tokenizer(vocabulary), preprocessing, context), folder / "bundle")
    convert(folder / "bundle", folder / "hf", "hf")
    if chinese:
        convert(folder / "bundle", folder / "clip_cn.pt", "cn-clip")


def jclip(folder: Path, threads: int, source: str = "bundle", **options: Any) -> Opened:
    """Opens a bundle or an ONNX export with `jclip.load`."""
    del threads  # the process may use no more processors
    import jclip

    model = jclip.load(folder / source, **options)
    return Opened(lambda images: partial(model.encode_image, images), lambda texts: partial(model.encode_text, texts))


def stablehlo(folder: Path, threads: int) -> Opened:
    """Opens a StableHLO export with its own loader."""
    del threads
    from jclip.export.stablehlo import run
    from jclip.tokenizers.text import load_tokenizer, pad

    towers, tokenizer = run.load(folder / "stablehlo"), load_tokenizer(folder / "bundle" / "tokenizer")

    def text(texts: Sequence[str]) -> Batch:
        encoded = tokenizer.encode(texts, CONTEXT)
        return partial(towers["text"], pad(encoded, max(map(len, encoded)), tokenizer.pad_id))

    return Opened(lambda images: partial(towers["image"], images), text)


def openvino(folder: Path, threads: int) -> Opened:
    """Opens an ONNX export with OpenVINO; texts are padded to the longest of the batch."""
    import openvino as ov

    from jclip.export.onnx_model import pixel_values
    from jclip.images.preprocess import Preprocessing
    from jclip.tokenizers.text import load_tokenizer, pad

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    image, text = (ov.compile_model(str(folder / "onnx" / f"{tower}.onnx"), "CPU", settings) for tower in TOWERS)
    tokenizer = load_tokenizer(folder / "bundle" / "tokenizer")

    def ids(texts: Sequence[str]) -> np.ndarray:
        encoded = tokenizer.encode(texts, CONTEXT)
        return pad(encoded, max(map(len, encoded)), tokenizer.pad_id).astype(np.int64)

    return Opened(
        lambda images: lambda: image(pixel_values(Preprocessing(), images))[0],
        lambda texts: lambda: text(ids(texts))[0],
    )


def transformers(folder: Path, threads: int) -> Opened:
    """Opens the exported model with transformers; texts are padded to the longest of the batch."""
    torch = open_torch(threads)
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder / "hf").eval(), AutoTokenizer.from_pretrained(folder / "hf")

    def image(images: np.ndarray) -> Batch:
        pixels = torch.from_numpy(normalised(images).transpose(0, 3, 1, 2).copy())
        return lambda: _features(torch, lambda: model.get_image_features(pixel_values=pixels))

    def text(texts: Sequence[str]) -> Batch:
        encoded = tokenizer(list(texts), padding=True, return_tensors="pt")
        given = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        return lambda: _features(torch, lambda: model.get_text_features(**given))

    return Opened(image, text)


def cn_clip(folder: Path, threads: int) -> Opened:
    """Opens the exported checkpoint with cn_clip, which rounds weights to float16 and pads texts to 52 tokens."""
    torch = open_torch(threads)
    from cn_clip import clip

    names = {"vision_model_name": "ViT-B-16", "text_model_name": "RoBERTa-wwm-ext-base-chinese"}
    model, _ = clip.load_from_name(str(folder / "clip_cn.pt"), "cpu", **names, input_resolution=224)
    model = model.float().eval()

    def image(images: np.ndarray) -> Batch:
        pixels = torch.from_numpy(normalised(images).transpose(0, 3, 1, 2).copy())
        return lambda: _features(torch, lambda: model.encode_image(pixels))

    def text(texts: Sequence[str]) -> Batch:
        ids = clip.tokenize(list(texts))
        return lambda: _features(torch, lambda: model.encode_text(ids))

    return Opened(image, text)


def jimm(folder: Path, threads: int) -> Opened:
    """Opens the exported model with jax-image-models; texts are padded to the longest of the batch.

    Features of texts differ by 1e-3, because its text tower has an epsilon of 1e-6 where CLIP has 1e-5.
    """
    del threads
    import jax
    from flax import nnx
    from jimm import CLIP

    from jclip.tokenizers.text import load_tokenizer, pad

    # Its parameters name an axis of a mesh, so it needs one.
    jax.set_mesh(jax.make_mesh((1,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,)))
    model, tokenizer = CLIP.from_pretrained(str(folder / "hf")), load_tokenizer(folder / "bundle" / "tokenizer")
    encode_image = nnx.jit(lambda model, images: model.encode_image(images))
    encode_text = nnx.jit(lambda model, ids: model.encode_text(ids))

    def text(texts: Sequence[str]) -> Batch:
        encoded = tokenizer.encode(texts, CONTEXT)
        ids = pad(encoded, max(map(len, encoded)), tokenizer.pad_id)
        return lambda: np.asarray(encode_text(model, ids))

    def image(images: np.ndarray) -> Batch:
        pixels = normalised(images)
        return lambda: np.asarray(encode_image(model, pixels))

    return Opened(image, text)


CONTENDERS = (
    Contender("jclip", "ours", "float32", 0.0, jclip),
    Contender("jclip bfloat16", "ours", "bfloat16", 2e-3, partial(jclip, dtype="bfloat16")),
    Contender("jclip's StableHLO", "ours", "float32", 1e-6, stablehlo),
    Contender("jclip's ONNX", "ours", "float32", 1e-5, partial(jclip, source="onnx"), ("onnxruntime",)),
    Contender("jclip's ONNX, int8", "ours", "int8", 5e-2, partial(jclip, source="int8"), ("onnxruntime",)),
    Contender("jclip's ONNX in OpenVINO", "recipe", "float32", 1e-5, openvino, ("openvino",)),
    Contender("transformers", "theirs", "float32", 1e-5, transformers, ("transformers", "torch")),
    Contender("cn_clip", "theirs", "float32", 1e-3, cn_clip, ("cn_clip", "torch"), ("chinese-clip",)),
    Contender("jimm", "theirs", "float32", 1e-2, jimm, families=("clip",), apart=True),
)


def normalised(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images as float32, normalised with CLIP's mean and standard deviation."""
    from jclip.images.preprocess import CLIP_MEAN, CLIP_STD

    return ((images.astype(np.float32) / 255 - np.float32(CLIP_MEAN)) / np.float32(CLIP_STD)).astype(np.float32)


def use_threads(threads: int) -> None:
    """Restricts this process to the first processors that it may use. Call it before a numerical library starts."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def open_torch(threads: int) -> Any:
    """Returns torch, with the number of threads set, after what the tests need to import torchvision."""
    from jclip.conversion.parity import peers

    peers.make_importable()
    import torch

    torch.set_num_threads(threads)
    return torch


def _features(torch: Any, compute: Callable[[], Any]) -> np.ndarray:
    with torch.inference_mode():
        found = compute()
    return np.asarray(getattr(found, "pooler_output", found))  # transformers 5 wraps the features
