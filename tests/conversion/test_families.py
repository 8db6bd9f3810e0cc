"""Every family and layout, converted whole and used as a user does, against the PyTorch model it came from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jclip
from jclip.conversion import convert
from jclip.conversion.importing import ConvertOptions, import_model
from jclip.conversion.parity import passport
from jclip.conversion.parity.comparison import EMBEDDINGS_WITHIN, LOGITS_WITHIN
from jclip.errors import JclipError
from jclip.images.preprocess import normalise, to_array
from tests.conversion import checkpoints
from tests.conversion.checkpoints import Encode, State, encode_hf, encode_openai
from tests.models.parity import unit

TEXTS = ["red apple 7", "绿苹果 3", "", "blue castle 11, violet hammer 12 and a dragon 200", "x"]
Made = tuple[Path, ConvertOptions, Encode]
"""What to convert, what to say of it, and the PyTorch model."""


def altclip_v4(folder: Path) -> Made:
    model = checkpoints.altclip(folder)
    checkpoints.save_hf(model, folder)
    return folder, ConvertOptions(), encode_hf(model)


def _altclip_state(folder: Path, spelling: str) -> tuple[Any, State]:
    model = checkpoints.altclip(folder)
    checkpoints.save_config(model, folder)
    layer = "encoder.layer." if spelling == "4" else "encoder.layers."
    state = {
        key.replace("roberta.encoder.layer.", f"roberta.{layer}").replace(
            "roberta.encoder.layers.", f"roberta.{layer}"
        ): v
        for key, v in checkpoints.state(model).items()
    }
    return model, state


def altclip_v5_in_memory(folder: Path) -> Made:
    model, state = _altclip_state(folder, "5")
    torch.save(state, folder / "pytorch_model.bin")
    return folder, ConvertOptions(), encode_hf(model)


def altclip_sharded(folder: Path) -> Made:
    model, state = _altclip_state(folder, "4")
    checkpoints.save_sharded(state, folder)
    return folder, ConvertOptions(), encode_hf(model)


def altclip_old_bin(folder: Path) -> Made:
    """As the hub has it: the format before torch 1.6, with buffers of position ids."""
    model, state = _altclip_state(folder, "4")
    state["text_model.roberta.embeddings.position_ids"] = torch.arange(26)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return folder, ConvertOptions(), encode_hf(model)


def altclip_flagai(folder: Path) -> Made:
    """FlagAI's: wrapped, with a pooler and m18's extra map, and another config.json."""
    model, state = _altclip_state(folder, "4")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"], config["text_config"]["model_type"] = "clip", "xlm-roberta"
    (folder / "config.json").write_text(json.dumps(config))
    state["text_model.roberta.pooler.dense.weight"] = torch.zeros(36, 36)
    state["text_model.roberta.pooler.dense.bias"] = torch.zeros(36)
    state["text_model.transformation_pre.weight"] = torch.zeros(36, 36)
    state["text_model.transformation_pre.bias"] = torch.zeros(36)
    torch.save({"module": state, "iteration": 7}, folder / "pytorch_model.bin")
    return folder, ConvertOptions(), encode_hf(model)


def chinese_clip_hf(folder: Path) -> Made:
    model = checkpoints.chinese_clip(folder)
    return checkpoints.save_hf(model, folder), ConvertOptions(), encode_hf(model)


def _cn_clip(folder: Path, layers: Any, change: Callable[[State], Any]) -> Made:
    model = checkpoints.cn_clip_model(folder, layers)
    file = folder / "clip_cn.pt"
    torch.save(change(checkpoints.state(model)), file)
    return file, ConvertOptions(tokenizer=folder / "vocab.txt"), encode_openai(model)


def _released(state: State) -> Any:
    return {"epoch": 15, "step": 0, "name": "x", "state_dict": {f"module.{key}": v for key, v in state.items()}}


def cn_clip_released(folder: Path) -> Made:
    return _cn_clip(folder, 2, _released)


def cn_clip_plain(folder: Path) -> Made:
    return _cn_clip(folder, 2, lambda state: state)


def cn_clip_training(folder: Path) -> Made:
    """With an optimizer's state beside it, and a pooler."""
    moments = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(4.0)}}, "param_groups": [{"lr": 1e-4}]}
    return _cn_clip(
        folder, 2, lambda s: _released(s | {"bert.pooler.dense.weight": torch.zeros(2, 2)}) | {"optimizer": moments}
    )


def cn_clip_resnet(folder: Path) -> Made:
    return _cn_clip(folder, (2, 1, 1, 1), _released)


def cn_clip_flash(folder: Path) -> Made:
    def spelt(state: State) -> State:
        found: State = {}
        for key, value in state.items():
            if ".attention.self.query." in key:
                parts = [state[key.replace("query", part)] for part in ("query", "key", "value")]
                found[key.replace("query", "Wqkv")] = torch.cat(parts)
            elif ".attention.output.dense." in key:
                found[key.replace("output.dense", "self.out_proj")] = value
            elif ".attention.self." not in key:
                found[key.replace("attn.in_proj_", "attn.Wqkv.")] = value
        return found

    return _cn_clip(folder, 2, lambda state: _released(spelt(state)))


def clip_hf(folder: Path) -> Made:
    model = checkpoints.clip(folder)
    return checkpoints.save_hf(model, folder), ConvertOptions(), encode_hf(model)


def clip_hf_gelu(folder: Path) -> Made:
    """LAION's models in Hugging Face's layout."""
    model = checkpoints.clip(folder, "gelu")
    return checkpoints.save_hf(model, folder), ConvertOptions(), encode_hf(model)


def _openai(folder: Path, layers: Any, *, scripted: bool) -> Made:
    model = checkpoints.open_clip_model(folder, quick_gelu=True, layers=layers, cast_dtype=torch.float16)
    checkpoints.save_openai(model, folder / "CLIP.pt", scripted=scripted)
    return folder / "CLIP.pt", ConvertOptions(tokenizer=folder / "merges.txt"), encode_openai(model)


def openai_vit(folder: Path) -> Made:
    return _openai(folder, 2, scripted=False)


def openai_resnet(folder: Path) -> Made:
    return _openai(folder, (1, 2, 1, 1), scripted=True)


def open_clip_hub(folder: Path) -> Made:
    """As open_clip pushes to the hub: exact GELU, wide heads, a configuration of its own."""
    from safetensors.torch import save_file

    model = checkpoints.open_clip_model(folder, quick_gelu=False)
    save_file(checkpoints.state(model), folder / "open_clip_model.safetensors")
    vision = {"image_size": 30, "layers": 2, "width": 128, "patch_size": 10}
    text = {"context_length": 20, "vocab_size": 600, "width": 128, "heads": 2, "layers": 2}
    config = {"model_cfg": {"embed_dim": 13, "vision_cfg": vision, "text_cfg": text}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder, ConvertOptions(), encode_openai(model)


def open_clip_training(folder: Path) -> Made:
    model = checkpoints.open_clip_model(folder, quick_gelu=False, layers=(1, 1, 1, 1))
    state = {f"module.{key}": value for key, value in checkpoints.state(model).items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": state}, folder / "epoch_3.pt")
    return (
        folder / "epoch_3.pt",
        ConvertOptions(tokenizer=folder / "merges.txt", activation="gelu"),
        encode_openai(model),
    )


LAYOUTS = [
    altclip_v4,
    altclip_v5_in_memory,
    altclip_sharded,
    altclip_old_bin,
    altclip_flagai,
    chinese_clip_hf,
    cn_clip_released,
    cn_clip_plain,
    cn_clip_training,
    cn_clip_resnet,
    cn_clip_flash,
    clip_hf,
    clip_hf_gelu,
    openai_vit,
    openai_resnet,
    open_clip_hub,
    open_clip_training,
]


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_a_converted_model_is_the_pytorch_model(make, tmp_path):
    source, options, encode = make(tmp_path / "source")
    made = convert(str(source), tmp_path / "bundle", options, lambda what: None)
    model = jclip.load(tmp_path / "bundle")
    bundle = model.bundle
    pictures = checkpoints.images(bundle.preprocessing.size)
    pixels = normalise(bundle.preprocessing, np.stack([to_array(bundle.preprocessing, p) for p in pictures]))
    # Padded further than ours pads, so that padding is seen not to matter.
    ids = bundle.tokenizer(TEXTS, bundle.context_length)
    image, text = map(unit, encode(np.asarray(pixels), ids))
    ours_image, ours_text = model.encode_image(pictures), model.encode_text(TEXTS)
    assert np.abs(ours_image - image).max() < EMBEDDINGS_WITHIN
    assert np.abs(ours_text - text).max() < EMBEDDINGS_WITHIN
    logits = encode.logit_scale * image @ text.T
    assert np.abs(model.similarity(pictures, TEXTS) - logits).max() < LOGITS_WITHIN * np.abs(logits).max()
    assert np.abs(image - image[0]).max() > 1e-3 and np.abs(text - text[0]).max() > 0.01  # or it would prove nothing

    (facts,) = made["sources"]
    assert facts["comparison"]["compared"]
    assert all(layer["relative"] < 1e-4 for layer in facts["comparison"]["layers"])
    tensors = facts["tensors"]
    assert tensors["read"] == tensors["mapped"] + len(tensors["dropped"])
    assert made == passport.read(tmp_path / "bundle")


@pytest.mark.parametrize("make", [openai_vit, openai_resnet], ids=lambda make: make.__name__)
def test_an_archive_of_openais_is_known_by_itself(make, tmp_path):
    source, options, _ = make(tmp_path / "source")
    model = import_model(str(source), options)
    assert model.source.family.name == "openai-clip"
    dropped = {key for key in model.imported.dropped if not key.endswith("num_batches_tracked")}
    assert dropped == {"input_resolution", "context_length", "vocab_size", "attn_mask"}
    assert set(model.facts()["dtypes"]) == {"float16", "float32"}


def test_layers_are_compared_one_by_one(tmp_path):
    source, options, _ = cn_clip_resnet(tmp_path / "source")
    made = convert(str(source), tmp_path / "bundle", options, lambda what: None)
    names = [layer["name"] for layer in made["sources"][0]["comparison"]["layers"]]
    stages = ["1_block_1", "1_block_2", "2_block_1", "3_block_1", "4_block_1"]
    assert names == [*(f"image/stage_{stage}" for stage in stages), "text/layers/0", "text/layers/1"]


def test_an_activation_that_nobody_wrote_down_is_the_users(tmp_path):
    """As in a configuration that leaves defaults out."""
    source, _, _ = clip_hf_gelu(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        del config[part]["hidden_act"]
    (source / "config.json").write_text(json.dumps(config))
    made = convert(str(source), tmp_path / "gelu", ConvertOptions(activation="gelu"), lambda what: None)
    assert made["sources"][0]["assumed"] == []
    made = convert(str(source), tmp_path / "default", ConvertOptions(), lambda what: None)
    assert made["sources"][0]["assumed"] == [f"activation of {p}_config: quick_gelu" for p in ("vision", "text")]


def test_what_a_missing_configuration_would_say_is_assumed_in_words(tmp_path):
    source, _, _ = clip_hf_gelu(tmp_path / "source")
    (source / "config.json").unlink()
    (facts,) = convert(str(source), tmp_path / "bundle", ConvertOptions(), lambda what: None)["sources"]
    assert any(line.startswith("without a config.json: heads of 64 channels") for line in facts["assumed"])
    assert facts["comparison"]["supposing"] == facts["assumed"]


@pytest.mark.parametrize("make", [openai_vit, open_clip_hub, cn_clip_plain], ids=lambda make: make.__name__)
def test_an_activation_that_contradicts_is_refused(make, tmp_path):
    source, options, _ = make(tmp_path / "source")
    other = "quick_gelu" if make is open_clip_hub else "gelu"
    with pytest.raises(JclipError, match=f"not {other}: leave --activation away"):
        convert(str(source), tmp_path / "bundle", replace(options, activation=other), lambda what: None)


def test_a_folder_with_both_configurations_gives_each_its_own(tmp_path):
    """As LAION's repositories on the hub: open_clip's file beside transformers' configuration."""
    source, options, _ = open_clip_hub(tmp_path / "source")
    (source / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_size": 7}}))
    convert(str(source), tmp_path / "bundle", options, lambda what: None)
