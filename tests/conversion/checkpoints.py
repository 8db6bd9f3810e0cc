"""Checkpoints of every family and layout, small and at odd sizes, with random weights, as their makers write them."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cn_clip.clip.model
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from jclip.data.sources.synthetic import write_tokenizer
from jclip.names import TokenizerKind
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
    "projection_dim": 512,  # an unused field of that name
}
WORDS = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 60,
}


def vocabulary(kind: TokenizerKind, folder: Path) -> int:
    """Writes a small vocabulary in its makers' format, and returns its size."""
    made = folder.parent / f"{folder.name}-{kind}"
    tokenizer = write_tokenizer(kind, made)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.txt", "merges.txt", "tokenizer.json"):
        if (made / name).is_file():
            (folder / name).write_bytes((made / name).read_bytes())
    return tokenizer.vocab_size


def bert_config(vocab_size: int) -> dict[str, Any]:
    """Returns a BERT's configuration."""
    return WORDS | {"vocab_size": vocab_size, "max_position_embeddings": 24, "type_vocab_size": 2, "pad_token_id": 0}


def xlm_r_config(vocab_size: int) -> dict[str, Any]:
    """Returns an XLM-R's configuration."""
    sizes = {"max_position_embeddings": 26, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return WORDS | sizes | {"vocab_size": vocab_size, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def altclip(folder: Path) -> Any:
    """Returns an AltCLIPModel, and writes its vocabulary into `folder`."""
    text = xlm_r_config(vocabulary("xlmr", folder)) | {"project_dim": 22}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=13)
    return randomise(transformers.AltCLIPModel(config))


def chinese_clip(folder: Path) -> Any:
    """Returns a ChineseCLIPModel, and writes its vocabulary into `folder`."""
    text = bert_config(vocabulary("wordpiece", folder))
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=13)
    return randomise(transformers.ChineseCLIPModel(config))


def clip(folder: Path, activation: str = "quick_gelu") -> Any:
    """Returns a CLIPModel, and writes its vocabulary into `folder`."""
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
    """Returns cn_clip's CLIP with a ViT, or with a ResNet if `layers` is four numbers; writes its vocabulary."""
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


def open_clip_model(
    folder: Path, *, quick_gelu: bool, layers: int | tuple[int, ...] = 2, cast_dtype: torch.dtype | None = None
) -> Any:
    """Returns open_clip's CLIP in OpenAI's layout, computing in `cast_dtype`; writes its vocabulary."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    resnet = isinstance(layers, tuple)
    vision = CLIPVisionCfg(layers=layers, width=8 if resnet else 128, patch_size=10, image_size=64 if resnet else 30)
    text = CLIPTextCfg(context_length=20, vocab_size=vocabulary("clip_bpe", folder), width=128, heads=2, layers=2)
    return randomise(CLIP(13, vision, text, quick_gelu=quick_gelu, cast_dtype=cast_dtype))


def state(model: torch.nn.Module) -> State:
    """Returns a copy of a model's state dict."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def save_hf(model: Any, folder: Path) -> Path:
    """Writes config.json and model.safetensors as transformers does."""
    model.save_pretrained(folder)
    return folder


def save_config(model: Any, folder: Path) -> None:
    """Writes config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))


def save_sharded(tensors: State, folder: Path, count: int = 3) -> None:
    """Writes model-0000n-of-0000m.safetensors and their index."""
    keys = sorted(tensors)
    places: dict[str, str] = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        mine = {key: tensors[key].contiguous() for key in keys[number::count]}
        save_file(mine, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(mine, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def save_openai(model: Any, file: Path, *, scripted: bool = False) -> None:
    """Writes open_clip's CLIP as a TorchScript archive like those that OpenAI published.

    Matrices, convolutions and their biases are float16, the rest stays float32, and the sizes are buffers. Afterwards
    `model` is float32 again, with values rounded to float16.
    """
    from open_clip.model import convert_weights_to_lp

    convert_weights_to_lp(model, torch.float16)
    size = model.visual.image_size if isinstance(model.visual.image_size, int) else model.visual.image_size[0]
    sizes = {"input_resolution": size, "context_length": model.context_length, "vocab_size": model.vocab_size}
    for name, value in sizes.items():
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    image = torch.zeros(1, 3, size, size, dtype=torch.float16)
    text = torch.zeros(1, sizes["context_length"], dtype=torch.long)
    inputs = {"forward": (image, text), "encode_image": image, "encode_text": text}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but OpenAI's archives use it
        archive = torch.jit.script(model) if scripted else torch.jit.trace_module(model, inputs, check_trace=False)
        torch.jit.save(archive, file)
    model.float()


def images(size: int, count: int = 3, seed: int = 1) -> np.ndarray:
    """Returns random uint8 images with different mean colours, because noise alone averages out."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (count, 4, 4, 3)) + 3 * draw.integers(0, 256, (count, 1, 1, 3))
    times = -(-size // 4)
    return (blocks // 4).astype(np.uint8).repeat(times, 1).repeat(times, 2)[:, :size, :size]


class Encode:
    """Encoders of a PyTorch model: normalised images (b, h, w, 3) and ids (b, l) to embeddings, not L2-normalised.

    Attributes:
      image: images -> (b, e).
      text: ids -> (b, e).
      logit_scale: the factor on their cosines.
      model: the PyTorch model.
    """

    def __init__(self, image: Callable[[Any], Any], text: Callable[[Any], Any], model: Any):
        self._image, self._text, self.model = image, text, model
        self.logit_scale = model.logit_scale.exp().item()

    def image(self, pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self._image(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())).float().numpy()

    def text(self, ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self._text(torch.from_numpy(ids.astype(np.int64))).float().numpy()

    def __call__(self, pictures: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.image(pictures), self.text(ids)


def encode_hf(model: Any) -> Encode:
    """Returns the encoders of a model of transformers."""
    pad_id = model.config.text_config.pad_token_id
    masked = not hasattr(model.text_model, "final_layer_norm")

    def text(ids: torch.Tensor) -> torch.Tensor:
        mask = {"attention_mask": (ids != pad_id).long()} if masked else {}
        return model.get_text_features(input_ids=ids, **mask).pooler_output

    return Encode(lambda pixels: model.get_image_features(pixels).pooler_output, text, model)


def encode_openai(model: Any) -> Encode:
    """Returns the encoders of a model of cn_clip or open_clip."""
    return Encode(model.encode_image, model.encode_text, model)
