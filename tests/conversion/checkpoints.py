"""Checkpoints of every family and layout, small and at odd sizes, with random weights, as their makers write them."""

import json
import warnings
from pathlib import Path
from typing import Any

import cn_clip.clip.model
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from jclip.data.synthetic import write_tokenizer
from jclip.data.text import Kind
from tests.models.torch_weights import randomise

State = dict[str, torch.Tensor]

VISION = {
    "hidden_size": 40,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "image_size": 30,
    "patch_size": 10,
    "hidden_act": "quick_gelu",
    "projection_dim": 512,  # another field of that name, which nobody reads
}
WORDS = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 60,
}


def vocabulary(kind: Kind, folder: Path) -> int:
    """Writes a small vocabulary as its makers ship it, and gives its size."""
    made = folder.parent / f"{folder.name}-{kind}"
    tokenizer = write_tokenizer(kind, made)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.txt", "merges.txt", "tokenizer.json"):
        if (made / name).is_file():
            (folder / name).write_bytes((made / name).read_bytes())
    return tokenizer.vocab_size


def bert_words(vocab_size: int) -> dict[str, Any]:
    """A BERT's configuration."""
    return WORDS | {"vocab_size": vocab_size, "max_position_embeddings": 24, "type_vocab_size": 2, "pad_token_id": 0}


def xlm_r_words(vocab_size: int) -> dict[str, Any]:
    """An XLM-R's configuration."""
    sizes = {"max_position_embeddings": 26, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return WORDS | sizes | {"vocab_size": vocab_size, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def altclip(folder: Path) -> Any:
    """An AltCLIPModel, its vocabulary in `folder`."""
    text = xlm_r_words(vocabulary("xlmr", folder)) | {"project_dim": 22}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=13)
    return randomise(transformers.AltCLIPModel(config))


def chinese_clip(folder: Path) -> Any:
    """A ChineseCLIPModel, its vocabulary in `folder`."""
    text = bert_words(vocabulary("wordpiece", folder))
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=13)
    return randomise(transformers.ChineseCLIPModel(config))


def clip(folder: Path, activation: str = "quick_gelu") -> Any:
    """A CLIPModel, its vocabulary in `folder`."""
    size = vocabulary("clip_bpe", folder)
    text = {
        "vocab_size": size,
        "hidden_size": 28,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 20,
        "hidden_act": activation,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
    }
    vision = VISION | {"hidden_act": activation}
    return randomise(
        transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=13))
    )


def cn_clip_model(folder: Path, layers: int | tuple[int, ...] = 2) -> Any:
    """cn_clip's CLIP with a ViT, or with a ResNet when `layers` is four numbers; its vocabulary in `folder`."""
    size, resnet = vocabulary("wordpiece", folder), isinstance(layers, tuple)
    model = cn_clip.clip.model.CLIP(
        embed_dim=13,
        image_resolution=64 if resnet else 30,
        vision_layers=layers,
        vision_width=8 if resnet else 128,
        vision_patch_size=None if resnet else 10,
        vision_head_width=64,
        vocab_size=size,
        text_attention_probs_dropout_prob=0.1,
        text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1,
        text_hidden_size=128,
        text_initializer_range=0.02,
        text_intermediate_size=60,
        text_max_position_embeddings=24,
        text_num_attention_heads=2,
        text_num_hidden_layers=2,
        text_type_vocab_size=2,
    )
    return randomise(model)


def open_clip_model(folder: Path, *, quick_gelu: bool, layers: int | tuple[int, ...] = 2) -> Any:
    """open_clip's CLIP, whose layout is OpenAI's; its vocabulary in `folder`."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    resnet = isinstance(layers, tuple)
    vision = CLIPVisionCfg(layers=layers, width=8 if resnet else 128, patch_size=10, image_size=64 if resnet else 30)
    text = CLIPTextCfg(context_length=20, vocab_size=vocabulary("clip_bpe", folder), width=128, heads=2, layers=2)
    return randomise(CLIP(13, vision, text, quick_gelu=quick_gelu))


def state(model: torch.nn.Module) -> State:
    """Its state dict, apart from the model."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def save_hf(model: Any, folder: Path) -> Path:
    """config.json and model.safetensors, as transformers writes them."""
    model.save_pretrained(folder)
    return folder


def save_config(model: Any, folder: Path) -> None:
    """config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))


def save_sharded(tensors: State, folder: Path, count: int = 3) -> None:
    """model-0000n-of-0000m.safetensors and their index."""
    keys = sorted(tensors)
    places: dict[str, str] = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        mine = {key: tensors[key].contiguous() for key in keys[number::count]}
        save_file(mine, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(mine, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def save_torchscript(tensors: State, file: Path) -> None:
    """A TorchScript archive with these parameters under their dotted names, as OpenAI's."""
    root = torch.nn.Module()
    for key, value in tensors.items():
        *names, last = key.split(".")
        module = root
        for name in names:
            if name not in dict(module.named_children()):
                module.add_module(name, torch.nn.Module())
            module = module.get_submodule(name)
        if value.is_floating_point() and "running_" not in last:
            module.register_parameter(last, torch.nn.Parameter(value, requires_grad=False))
        else:
            module.register_buffer(last, value)
    with warnings.catch_warnings():  # torch would have us export otherwise by now, but OpenAI's archives are such
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(root), file)


def half_as_openai(tensors: State) -> State:
    """float16 where OpenAI's archives have it: matrices and convolutions, with their biases; norms stay float32."""
    kept = ("ln_", "bn", "downsample.1", "positional_embedding", "class_embedding", "token_embedding", "logit_scale")
    return {key: value if any(k in key for k in kept) else value.half() for key, value in tensors.items()}


def images(size: int, count: int = 3, seed: int = 1) -> np.ndarray:
    """Random blocks of colour, uint8, each picture with one that prevails: noise alone averages out."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (count, 4, 4, 3)) + 3 * draw.integers(0, 256, (count, 1, 1, 3))
    times = -(-size // 4)
    return (blocks // 4).astype(np.uint8).repeat(times, 1).repeat(times, 2)[:, :size, :size]


Encode = Any
"""(normalised pictures, ids) -> embeddings; its attribute `logit_scale` is the factor on their cosines."""


def encode_hf(model: Any) -> Encode:
    """Embeddings of transformers' models, from normalised pictures and ids."""

    def encode(pictures: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pad_id = model.config.text_config.pad_token_id
        masked = not hasattr(model.text_model, "final_layer_norm")
        with torch.inference_mode():
            tokens = torch.from_numpy(ids.astype(np.int64))
            mask = {"attention_mask": (tokens != pad_id).long()} if masked else {}
            image = model.get_image_features(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()))
            text = model.get_text_features(input_ids=tokens, **mask)
        return image.pooler_output.numpy(), text.pooler_output.numpy()

    encode.logit_scale = model.logit_scale.exp().item()
    return encode


def encode_openai(model: Any) -> Encode:
    """Embeddings of cn_clip's and open_clip's models."""

    def encode(pictures: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            image = model.encode_image(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()))
            text = model.encode_text(torch.from_numpy(ids.astype(np.int64)))
        return image.float().numpy(), text.float().numpy()

    encode.logit_scale = model.logit_scale.exp().item()
    return encode
