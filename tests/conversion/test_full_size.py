"""Published models at their real sizes with random weights, imported and exported. Takes minutes and gigabytes."""

import filecmp
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import jclip
from jclip.bundle import open_bundle
from jclip.conversion import CheckpointOptions, convert, export
from jclip.conversion.parity.comparison import EMBEDDINGS_WITHIN, LOGITS_WITHIN
from jclip.conversion.parity.memory import release
from jclip.images.preprocess import normalise, to_array
from tests.conversion import checkpoints, full_size, real_models
from tests.conversion.checkpoints import encode_hf, encode_openai
from tests.models.parity import unit
from tests.models.test_zoo import COUNTS, TEXT_COUNTS

SAFETENSORS = "model.safetensors"
MODELS = [
    ("chinese-clip-rn50", "cn-clip", "clip_cn.pt"),
    ("chinese-clip-vit-b-32", "cn-clip", SAFETENSORS),
    ("chinese-clip-vit-b-16", "cn-clip", "clip_cn.pt"),
    ("chinese-clip-vit-b-16", "chinese-clip", "pytorch_model.bin"),
    ("chinese-clip-vit-l-14", "cn-clip", SAFETENSORS),
    ("chinese-clip-vit-l-14", "chinese-clip", SAFETENSORS),
    ("chinese-clip-vit-l-14-336", "cn-clip", SAFETENSORS),
    ("chinese-clip-vit-l-14-336", "chinese-clip", SAFETENSORS),
    ("chinese-clip-vit-h-14", "cn-clip", SAFETENSORS),
    ("chinese-clip-vit-h-14", "chinese-clip", SAFETENSORS),
    ("altclip", "altclip", SAFETENSORS),
    ("altclip", "altclip", "pytorch_model.bin"),
    ("altclip-m18", "altclip", SAFETENSORS),
    ("clip-rn50", "openai-clip", "CLIP.pt"),
    ("clip-vit-b-32", "clip", SAFETENSORS),
    ("clip-vit-b-32", "openai-clip", "CLIP.pt"),
    ("clip-vit-b-16", "openai-clip", SAFETENSORS),
    ("clip-vit-l-14", "clip", SAFETENSORS),
    ("clip-vit-l-14-336", "openai-clip", SAFETENSORS),
    ("clip-vit-h-14", "open-clip", SAFETENSORS),
    ("xlm-r-base", "xlm-r", SAFETENSORS),
    ("xlm-r-large", "xlm-r", SAFETENSORS),
    ("roberta-wwm-base", "bert", SAFETENSORS),
    ("roberta-wwm-large", "bert", SAFETENSORS),
    ("rbt3", "bert", SAFETENSORS),
]
CLASSES = {"altclip": transformers.AltCLIPModel, "chinese-clip": transformers.ChineseCLIPModel}
TEXTS = ["红苹果", "a blue castle, 12 violet hammers and a dragon", "", "一只在草地上奔跑的狗" * 9]


@pytest.fixture
def place(much_memory):
    """Folder that is removed at once; pytest would keep the gigabytes of all tests."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def converted(source, family, bundle):
    options = CheckpointOptions(family=family, activation="gelu" if family == "open-clip" else None)
    return convert(str(source), bundle, options, lambda what: None)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family", "file"), MODELS)
def test_published_sizes_convert_and_agree_with_pytorch(name, family, file, place):
    made = converted(full_size.write(name, family, place / "source", file), family, place / "bundle")
    config = json.loads((place / "bundle" / "config.json").read_text())["model"]
    assert made["parameters"]["all"] == (COUNTS | TEXT_COUNTS)[name]
    (facts,) = made["sources"]
    assert file in [read["name"] for read in facts["files"]]
    assert ("float16" in facts["dtypes"]) == (file == "CLIP.pt")
    comparison = facts["comparison"]
    assert comparison["compared"]
    assert max(comparison["embeddings"].values()) < EMBEDDINGS_WITHIN
    assert (comparison["logits"] or 0) < LOGITS_WITHIN
    assert config["text"]["heads"] * 64 == config["text"]["width"]
    worst = max(layer["relative"] for layer in comparison["layers"])
    logits = "–" if comparison["logits"] is None else f"{comparison['logits']:.1e}"
    print(
        f"\n| {name} | {family}, {file} | {comparison['reference']} | {worst:.1e} | "
        f"{max(comparison['embeddings'].values()):.1e} | {logits} |"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family", "to"),
    [
        ("chinese-clip-rn50", "cn-clip", "cn-clip"),
        ("chinese-clip-vit-b-16", "cn-clip", "cn-clip"),
        ("chinese-clip-vit-b-16", "chinese-clip", "hf"),
        ("altclip", "altclip", "hf"),
    ],
)
def test_export_and_import_again_is_exact(name, family, to, place):
    """The makers' class loads the export and computes the same; the bundle of a second import is equal to the bit."""
    source = full_size.write(name, family, place / "source")
    converted(source, family, place / "bundle")
    out = place / ("out.pt" if to == "cn-clip" else "out")
    export(place / "bundle", out, to)
    if to == "hf":
        assert filecmp.cmp(source / SAFETENSORS, out / SAFETENSORS, shallow=False)
    shutil.rmtree(place / "source")
    print(f"\n| {name} | --to {to} | {_agree_within(place / 'bundle', _loaded(name, family, out)):.1e} |")
    converted(out, family, place / "again")
    assert filecmp.cmp(*(place / made / "parameters.safetensors" for made in ("bundle", "again")), shallow=False)
    first, second = open_bundle(place / "bundle"), open_bundle(place / "again")
    assert (first.config, first.preprocessing) == (second.config, second.preprocessing)
    assert (first.tokenizer.vocab_size, first.context_length) == (second.tokenizer.vocab_size, second.context_length)


def _loaded(name, family, out):
    """Loads our export into the makers' class."""
    if out.is_dir():
        model, info = CLASSES[family].from_pretrained(out, output_loading_info=True)
        assert not any(info.values()), info
        return encode_hf(model.eval())
    saved = torch.load(out, weights_only=True)["state_dict"]
    return encode_openai(real_models.cn_clip_with(name, {k.removeprefix("module."): v for k, v in saved.items()}))


def _agree_within(folder, encode):
    """Returns the largest difference between embeddings. Frees the makers' model before it loads ours."""
    bundle = open_bundle(folder)
    pictures = checkpoints.images(bundle.preprocessing.size)
    pixels = normalise(bundle.preprocessing, np.stack([to_array(bundle.preprocessing, p) for p in pictures]))
    theirs = [unit(rows) for rows in encode(np.asarray(pixels), bundle.tokenizer(TEXTS, bundle.context_length))]
    scale = encode.logit_scale
    del encode
    release()
    model = jclip.load(folder)
    ours = [model.encode_image(pictures), model.encode_text(TEXTS)]
    for rows in theirs:  # equal rows would prove nothing
        assert np.abs(rows - rows[0]).max() > 1e-3
    worst = max(float(np.abs(one - two).max()) for one, two in zip(ours, theirs, strict=True))
    assert worst < EMBEDDINGS_WITHIN
    logits = scale * theirs[0] @ theirs[1].T
    assert np.abs(model.similarity_scale * ours[0] @ ours[1].T - logits).max() < LOGITS_WITHIN * np.abs(logits).max()
    return worst
