"""The mapping tables of single towers, from which each family's table is put together.

CLIP's transformers come in two layouts, OpenAI's (which cn_clip and open_clip keep) and Hugging Face's; BERT in one.
"""

from collections.abc import Iterable

from jclip.conversion.rows import Row, attention, batch_norm, conv, dense, fused_attention, norm


def hf_vit(prefix: str = "vision_model.") -> Iterable[Row]:
    """The image tower of CLIPModel, ChineseCLIPModel and AltCLIPModel, without its projection."""
    yield Row("image/class_embedding", f"{prefix}embeddings.class_embedding")
    yield from conv("image/patch", f"{prefix}embeddings.patch_embedding")
    yield Row("image/position_embedding", f"{prefix}embeddings.position_embedding.weight")
    yield from norm("image/pre_norm", f"{prefix}pre_layrnorm")  # their spelling
    yield from _hf_layers("image/layers", prefix)
    yield from norm("image/post_norm", f"{prefix}post_layernorm")


def hf_clip_text(prefix: str = "text_model.") -> Iterable[Row]:
    """The text tower of CLIPModel, without its projection."""
    yield Row("text/token_embedding", f"{prefix}embeddings.token_embedding.weight")
    yield Row("text/position_embedding", f"{prefix}embeddings.position_embedding.weight")
    yield from _hf_layers("text/layers", prefix)
    yield from norm("text/final_norm", f"{prefix}final_layer_norm")


def openai_vit(prefix: str = "visual.") -> Iterable[Row]:
    """A ViT in OpenAI's layout."""
    yield Row("image/class_embedding", f"{prefix}class_embedding")
    yield from conv("image/patch", f"{prefix}conv1")
    yield Row("image/position_embedding", f"{prefix}positional_embedding")
    yield from norm("image/pre_norm", f"{prefix}ln_pre")
    yield from _openai_layers("image/layers", f"{prefix}transformer.resblocks")
    yield from norm("image/post_norm", f"{prefix}ln_post")
    yield Row("image/projection/kernel", f"{prefix}proj")  # a parameter, not a module: (in, out) already


def openai_text() -> Iterable[Row]:
    """CLIP's text tower in OpenAI's layout: its parts lie at the top level."""
    yield Row("text/token_embedding", "token_embedding.weight")
    yield Row("text/position_embedding", "positional_embedding")
    yield from _openai_layers("text/layers", "transformer.resblocks")
    yield from norm("text/final_norm", "ln_final")
    yield Row("text/projection/kernel", "text_projection")


def openai_resnet(blocks: tuple[int, ...], prefix: str = "visual.") -> Iterable[Row]:
    """The modified ResNet in OpenAI's layout, with so many blocks in each stage."""
    for index in (1, 2, 3):
        yield from conv(f"image/stem/conv_{index}", f"{prefix}conv{index}")
        yield from batch_norm(f"image/stem/norm_{index}", f"{prefix}bn{index}")
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            ours, theirs = f"image/stage_{stage}_block_{block + 1}", f"{prefix}layer{stage}.{block}"
            for index in (1, 2, 3):
                yield from conv(f"{ours}/conv_{index}", f"{theirs}.conv{index}")
                yield from batch_norm(f"{ours}/norm_{index}", f"{theirs}.bn{index}")
            if block == 0:  # the first block of each stage changes the width, so that its shortcut is a convolution
                yield from conv(f"{ours}/shortcut_conv", f"{theirs}.downsample.0")
                yield from batch_norm(f"{ours}/shortcut_norm", f"{theirs}.downsample.1")
    pool = f"{prefix}attnpool."
    yield Row("image/attention_pool/position_embedding", f"{pool}positional_embedding")
    names = {"query": f"{pool}q_proj", "key": f"{pool}k_proj", "value": f"{pool}v_proj", "output": f"{pool}c_proj"}
    yield from attention("image/attention_pool/attention", names)


def bert(prefix: str, *, fused: bool = False) -> Iterable[Row]:
    """A BERT without pooler.

    Args:
      prefix: of the keys.
      fused: whether query, key and value are one tensor, as cn_clip names them under flash attention.
    """
    for name in ("word", "position", "token_type"):
        yield Row(f"text/{name}_embedding", f"{prefix}embeddings.{name}_embeddings.weight")
    yield from norm("text/embedding_norm", f"{prefix}embeddings.LayerNorm")
    ours, theirs = "text/layers", f"{prefix}encoder.layer.{{i}}"
    core = f"{theirs}.attention.self"
    if fused:
        wqkv = f"{core}.Wqkv"
        yield from fused_attention(f"{ours}/attention", f"{wqkv}.weight", f"{wqkv}.bias", f"{core}.out_proj")
    else:
        names = {name: f"{core}.{name}" for name in ("query", "key", "value")}
        yield from attention(f"{ours}/attention", names | {"output": f"{theirs}.attention.output.dense"})
    yield from norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
    yield from dense(f"{ours}/mlp/fc1", f"{theirs}.intermediate.dense")
    yield from dense(f"{ours}/mlp/fc2", f"{theirs}.output.dense")
    yield from norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm")


def _hf_layers(ours: str, prefix: str) -> Iterable[Row]:
    theirs = f"{prefix}encoder.layers.{{i}}"
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    yield from attention(f"{ours}/attention", {name: f"{theirs}.self_attn.{key}" for name, key in names.items()})
    yield from norm(f"{ours}/attention_norm", f"{theirs}.layer_norm1")
    yield from dense(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1")
    yield from dense(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2")
    yield from norm(f"{ours}/mlp_norm", f"{theirs}.layer_norm2")


def _openai_layers(ours: str, prefix: str) -> Iterable[Row]:
    theirs = f"{prefix}.{{i}}"
    fused = f"{theirs}.attn.in_proj"
    yield from fused_attention(f"{ours}/attention", f"{fused}_weight", f"{fused}_bias", f"{theirs}.attn.out_proj")
    yield from norm(f"{ours}/attention_norm", f"{theirs}.ln_1")
    yield from dense(f"{ours}/mlp/fc1", f"{theirs}.mlp.c_fc")
    yield from dense(f"{ours}/mlp/fc2", f"{theirs}.mlp.c_proj")
    yield from norm(f"{ours}/mlp_norm", f"{theirs}.ln_2")
