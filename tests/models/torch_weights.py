"""Random weights for the PyTorch references, and the same weights as our parameter trees.

Two layouts: Hugging Face's, and OpenAI's, which cn_clip keeps. Every weight is read by name, so a name that a
reference renames is a KeyError, and `unread` returns the names that were not read.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

Tree = dict[str, Any]


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Gives every parameter and running statistic a value whose omission is noticed; sets evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith("logit_scale"):
                value.copy_(torch.tensor(1.25))
            elif value.ndim >= 2:
                # Embeddings as small as trained ones, so that the epsilon of the following norm matters.
                value.copy_(normal(value.shape, 0.05 if "embedding" in name else value[0].numel() ** -0.5))
            else:
                is_scale = name.endswith("weight")
                value.copy_(normal(value.shape, 0.3) + is_scale)
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(normal(value.shape, 0.3))
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module.eval()


class Weights:
    """State dict that records which tensors were read."""

    def __init__(self, module: torch.nn.Module):
        self._state = {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}
        self._unread = set(self._state)

    def __getitem__(self, name: str) -> np.ndarray:
        self._unread.discard(name)
        return self._state[name]

    def unread(self) -> set[str]:
        """Returns the names that were never read, without counters and position indices."""
        return {name for name in self._unread if not re.search(r"num_batches_tracked|position_ids|pooler\.", name)}

    def has(self, name: str) -> bool:
        return name in self._state

    def count(self, pattern: str) -> int:
        """Returns the number of layers that match `pattern`, whose one group is the layer's number."""
        return 1 + max(int(match[1]) for name in self._state if (match := re.search(pattern, name)))

    def dense(self, name: str) -> Tree:
        tree = {"kernel": self[f"{name}.weight"].T}
        return tree | {"bias": self[f"{name}.bias"]} if self.has(f"{name}.bias") else tree

    def norm(self, name: str) -> Tree:
        return {"scale": self[f"{name}.weight"], "bias": self[f"{name}.bias"]}

    def conv(self, name: str) -> Tree:
        return {"kernel": self[f"{name}.weight"].transpose(2, 3, 1, 0)}

    def stacked(self, pattern: str, layer: Callable[[str], Tree]) -> Tree:
        """Returns the layers at "prefix.%d" as one tree with a leading axis."""
        count = self.count(re.escape(pattern).replace("%d", r"(\d+)") + r"\.")
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[layer(pattern % index) for index in range(count)])


def bert(weights: Weights, prefix: str = "") -> Tree:
    """Returns a BERT without head and projection: Hugging Face's, or cn_clip's, which has the same names."""
    plural = weights.has(f"{prefix}encoder.layers.0.output.dense.bias")

    def layer(name: str) -> Tree:
        attention = {part: weights.dense(f"{name}.attention.self.{part}") for part in ("query", "key", "value")}
        return {
            "attention": attention | {"output": weights.dense(f"{name}.attention.output.dense")},
            "attention_norm": weights.norm(f"{name}.attention.output.LayerNorm"),
            "mlp": {"fc1": weights.dense(f"{name}.intermediate.dense"), "fc2": weights.dense(f"{name}.output.dense")},
            "mlp_norm": weights.norm(f"{name}.output.LayerNorm"),
        }

    return {
        **{f"{part}_embedding": weights[f"{prefix}embeddings.{part}_embeddings.weight"] for part in _EMBEDDINGS},
        "embedding_norm": weights.norm(f"{prefix}embeddings.LayerNorm"),
        "layers": weights.stacked(f"{prefix}encoder.layer{'s' * plural}.%d", layer),
    }


_EMBEDDINGS = ("word", "position", "token_type")


def hf_clip_layers(weights: Weights, prefix: str) -> Tree:
    """Returns the layers of a CLIP transformer in Hugging Face's layout."""

    def layer(name: str) -> Tree:
        names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
        return {
            "attention": {ours: weights.dense(f"{name}.self_attn.{theirs}") for ours, theirs in names.items()},
            "attention_norm": weights.norm(f"{name}.layer_norm1"),
            "mlp": {part: weights.dense(f"{name}.mlp.{part}") for part in ("fc1", "fc2")},
            "mlp_norm": weights.norm(f"{name}.layer_norm2"),
        }

    return weights.stacked(f"{prefix}encoder.layers.%d", layer)


def hf_vit(weights: Weights) -> Tree:
    """Returns the image tower of a CLIP, Chinese-CLIP or AltCLIP model in Hugging Face's layout."""
    embeddings = "vision_model.embeddings."
    return {
        "class_embedding": weights[f"{embeddings}class_embedding"],
        "patch": weights.conv(f"{embeddings}patch_embedding"),
        "position_embedding": weights[f"{embeddings}position_embedding.weight"],
        "pre_norm": weights.norm("vision_model.pre_layrnorm"),
        "layers": hf_clip_layers(weights, "vision_model."),
        "post_norm": weights.norm("vision_model.post_layernorm"),
        "projection": weights.dense("visual_projection"),
    }


def hf_clip_text(weights: Weights) -> Tree:
    """Returns the text tower of a CLIP model in Hugging Face's layout."""
    return {
        "token_embedding": weights["text_model.embeddings.token_embedding.weight"],
        "position_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "layers": hf_clip_layers(weights, "text_model."),
        "final_norm": weights.norm("text_model.final_layer_norm"),
        "projection": weights.dense("text_projection"),
    }


def hf_clip(weights: Weights) -> Tree:
    """Returns the parameters of a CLIPModel."""
    return {"image": hf_vit(weights), "text": hf_clip_text(weights), "logit_scale": weights["logit_scale"]}


def hf_chinese_clip(weights: Weights) -> Tree:
    """Returns the parameters of a ChineseCLIPModel."""
    text = bert(weights, "text_model.") | {"projection": weights.dense("text_projection")}
    return {"image": hf_vit(weights), "text": text, "logit_scale": weights["logit_scale"]}


def hf_altclip(weights: Weights) -> Tree:
    """Returns the parameters of an AltCLIPModel."""
    text = bert(weights, "text_model.roberta.") | {
        "head_norm": weights.norm("text_model.pre_LN"),
        "head": weights.dense("text_model.transformation"),
        "projection": weights.dense("text_projection"),
    }
    return {"image": hf_vit(weights), "text": text, "logit_scale": weights["logit_scale"]}


def openai_vit(weights: Weights, prefix: str = "") -> Tree:
    """Returns cn_clip's VisualTransformer, whose query, key and value are one matrix and projections not transposed."""

    def layer(name: str) -> Tree:
        kernels = np.split(weights[f"{name}.attn.in_proj_weight"].T, 3, axis=1)
        biases = np.split(weights[f"{name}.attn.in_proj_bias"], 3)
        parts = zip(("query", "key", "value"), kernels, biases, strict=True)
        attention = {part: {"kernel": kernel, "bias": bias} for part, kernel, bias in parts}
        return {
            "attention": attention | {"output": weights.dense(f"{name}.attn.out_proj")},
            "attention_norm": weights.norm(f"{name}.ln_1"),
            "mlp": {"fc1": weights.dense(f"{name}.mlp.c_fc"), "fc2": weights.dense(f"{name}.mlp.c_proj")},
            "mlp_norm": weights.norm(f"{name}.ln_2"),
        }

    return {
        "class_embedding": weights[f"{prefix}class_embedding"],
        "patch": weights.conv(f"{prefix}conv1"),
        "position_embedding": weights[f"{prefix}positional_embedding"],
        "pre_norm": weights.norm(f"{prefix}ln_pre"),
        "layers": weights.stacked(f"{prefix}transformer.resblocks.%d", layer),
        "post_norm": weights.norm(f"{prefix}ln_post"),
        "projection": {"kernel": weights[f"{prefix}proj"]},
    }


def openai_resnet(weights: Weights, prefix: str = "") -> tuple[Tree, Tree]:
    """Returns the parameters and running statistics of cn_clip's ModifiedResNet."""

    def convs_and_norms(name: str) -> tuple[Tree, Tree]:
        params: Tree = {}
        stats: Tree = {}
        for index in (1, 2, 3):
            params[f"conv_{index}"] = weights.conv(f"{name}conv{index}")
            params[f"norm_{index}"], stats[f"norm_{index}"] = norm(f"{name}bn{index}")
        return params, stats

    def norm(name: str) -> tuple[Tree, Tree]:
        return weights.norm(name), {"mean": weights[f"{name}.running_mean"], "var": weights[f"{name}.running_var"]}

    params: Tree = {}
    stats: Tree = {}
    params["stem"], stats["stem"] = convs_and_norms(prefix)
    for stage in (1, 2, 3, 4):
        for block in range(weights.count(re.escape(f"{prefix}layer{stage}.") + r"(\d+)\.conv1")):
            theirs, ours = f"{prefix}layer{stage}.{block}.", f"stage_{stage}_block_{block + 1}"
            params[ours], stats[ours] = convs_and_norms(theirs)
            if weights.has(f"{theirs}downsample.0.weight"):
                params[ours]["shortcut_conv"] = weights.conv(f"{theirs}downsample.0")
                params[ours]["shortcut_norm"], stats[ours]["shortcut_norm"] = norm(f"{theirs}downsample.1")
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "c_proj"}
    params["attention_pool"] = {
        "position_embedding": weights[f"{prefix}attnpool.positional_embedding"],
        "attention": {ours: weights.dense(f"{prefix}attnpool.{theirs}") for ours, theirs in names.items()},
    }
    return params, stats


def cn_clip(weights: Weights) -> Tree:
    """Returns cn_clip's CLIP as variables: {"params": …} and, for RN50, {"batch_stats": …}."""
    text = bert(weights, "bert.") | {"projection": {"kernel": weights["text_projection"]}}
    stats: Tree = {}
    if weights.has("visual.class_embedding"):
        image = openai_vit(weights, "visual.")
    else:
        image, image_stats = openai_resnet(weights, "visual.")
        stats = {"batch_stats": {"image": image_stats}}
    return {"params": {"image": image, "text": text, "logit_scale": weights["logit_scale"]}, **stats}
