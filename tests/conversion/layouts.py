"""Checkpoints of every family in every layout in which their makers wrote them, with the PyTorch models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from jclip.conversion import CheckpointOptions
from tests.conversion import checkpoints
from tests.conversion.checkpoints import Encode, State, encode_hf, encode_openai
from tests.models.torch_weights import randomise

TEXTS = ["red apple 7", "绿苹果 3", "", "blue castle 11, violet hammer 12 and a dragon 200", "x"]
Made = tuple[Path, CheckpointOptions, Encode]
"""Path to convert, options, and the PyTorch model."""


def altclip_v4(folder: Path) -> Made:
    model = checkpoints.altclip(folder)
    checkpoints.save_hf(model, folder)
    return folder, CheckpointOptions(), encode_hf(model)


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
    return folder, CheckpointOptions(), encode_hf(model)


def altclip_sharded(folder: Path) -> Made:
    model, state = _altclip_state(folder, "4")
    checkpoints.save_sharded(state, folder)
    return folder, CheckpointOptions(), encode_hf(model)


def altclip_old_bin(folder: Path) -> Made:
    """Writes the file on the hub: the format before torch 1.6, with buffers of position ids."""
    model, state = _altclip_state(folder, "4")
    state["text_model.roberta.embeddings.position_ids"] = torch.arange(26)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return folder, CheckpointOptions(), encode_hf(model)


def altclip_flagai(folder: Path) -> Made:
    """Writes a model as FlagAI saves it: wrapped, with a pooler, m18's additional layer, and another config.json."""
    model, state = _altclip_state(folder, "4")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"], config["text_config"]["model_type"] = "clip", "xlm-roberta"
    (folder / "config.json").write_text(json.dumps(config))
    state["text_model.roberta.pooler.dense.weight"] = torch.zeros(36, 36)
    state["text_model.roberta.pooler.dense.bias"] = torch.zeros(36)
    state["text_model.transformation_pre.weight"] = torch.zeros(36, 36)
    state["text_model.transformation_pre.bias"] = torch.zeros(36)
    torch.save({"module": state, "iteration": 7}, folder / "pytorch_model.bin")
    return folder, CheckpointOptions(), encode_hf(model)


def chinese_clip_hf(folder: Path) -> Made:
    model = checkpoints.chinese_clip(folder)
    return checkpoints.save_hf(model, folder), CheckpointOptions(), encode_hf(model)


def _cn_clip(folder: Path, layers: Any, change: Callable[[State], Any]) -> Made:
    model = checkpoints.cn_clip_model(folder, layers)
    file = folder / "clip_cn.pt"
    torch.save(change(checkpoints.state(model)), file)
    return file, CheckpointOptions(tokenizer=folder / "vocab.txt"), encode_openai(model)


def _released(state: State) -> Any:
    return {"epoch": 15, "step": 0, "name": "x", "state_dict": {f"module.{key}": v for key, v in state.items()}}


def cn_clip_released(folder: Path) -> Made:
    return _cn_clip(folder, 2, _released)


def cn_clip_plain(folder: Path) -> Made:
    return _cn_clip(folder, 2, lambda state: state)


def cn_clip_training(folder: Path) -> Made:
    """Writes a training checkpoint with an optimizer's state and a pooler."""
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
    return checkpoints.save_hf(model, folder), CheckpointOptions(), encode_hf(model)


def clip_hf_gelu(folder: Path) -> Made:
    """Writes a model like LAION's in Hugging Face's layout."""
    model = checkpoints.clip(folder, "gelu")
    return checkpoints.save_hf(model, folder), CheckpointOptions(), encode_hf(model)


def _openai(folder: Path, layers: Any, *, scripted: bool) -> Made:
    model = checkpoints.open_clip_model(folder, quick_gelu=True, layers=layers, cast_dtype=torch.float16)
    checkpoints.save_openai(model, folder / "CLIP.pt", scripted=scripted)
    return folder / "CLIP.pt", CheckpointOptions(tokenizer=folder / "merges.txt"), encode_openai(model)


def openai_vit(folder: Path) -> Made:
    return _openai(folder, 2, scripted=False)


def openai_resnet(folder: Path) -> Made:
    return _openai(folder, (1, 2, 1, 1), scripted=True)


def open_clip_hub(folder: Path) -> Made:
    """Writes what open_clip pushes to the hub: exact GELU, wide heads, its own configuration."""
    from safetensors.torch import save_file

    model = checkpoints.open_clip_model(folder, quick_gelu=False)
    save_file(checkpoints.state(model), folder / "open_clip_model.safetensors")
    vision = {"image_size": 30, "layers": 2, "width": 128, "patch_size": 10}
    text = {"context_length": 20, "vocab_size": 600, "width": 128, "heads": 2, "layers": 2}
    config = {"model_cfg": {"embed_dim": 13, "vision_cfg": vision, "text_cfg": text}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder, CheckpointOptions(), encode_openai(model)


def open_clip_training(folder: Path) -> Made:
    model = checkpoints.open_clip_model(folder, quick_gelu=False, layers=(1, 1, 1, 1))
    state = {f"module.{key}": value for key, value in checkpoints.state(model).items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": state}, folder / "epoch_3.pt")
    return (
        folder / "epoch_3.pt",
        CheckpointOptions(tokenizer=folder / "merges.txt", activation="gelu"),
        encode_openai(model),
    )


def cn_clip_shaped(folder: Path) -> Made:
    """Writes a ChineseCLIPModel with the widths of heads and MLPs that cn_clip's format assumes."""
    text = checkpoints.bert_config(checkpoints.vocabulary("wordpiece", folder))
    text |= {"hidden_size": 128, "num_attention_heads": 2}
    vision = checkpoints.VISION | {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=13)
    model = randomise(transformers.ChineseCLIPModel(config))
    return checkpoints.save_hf(model, folder), CheckpointOptions(), encode_hf(model)


def xlm_r(folder: Path) -> Any:
    """Returns an XLM-R's folder and model."""
    words = checkpoints.xlm_r_config(checkpoints.vocabulary("xlmr", folder))
    model = randomise(transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**words)))
    return checkpoints.save_hf(model, folder), CheckpointOptions(), model


def bert(folder: Path) -> Any:
    """Returns a BERT's folder and model."""
    words = checkpoints.bert_config(checkpoints.vocabulary("wordpiece", folder))
    model = randomise(transformers.BertModel(transformers.BertConfig(**words)))
    return checkpoints.save_hf(model, folder), CheckpointOptions(), model
