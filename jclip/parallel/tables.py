"""How the towers lie on the mesh: a table for each family, over the names within a tower.

In a layer this is Megatron's tensor parallelism (Shoeybi et al. 2019, section 3). Of its matrices those that lead in
(query, key and value, fc1) are split over "tensor" along their outputs, so that a device has whole heads and hidden
units of its own; those that lead out (output, fc2) along their inputs, so that the devices' shares need only be summed:
once after the attention and once after the perceptron. "fsdp" splits the other dimension, and is gathered for each
layer. Layers are stacked, (layers, in, out), and stay whole along the first axis: a scan takes one after another.
"""

from jax.sharding import Mesh

from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.parallel.sharding import Placement, Rules

# In "tensor+fsdp" tensor comes first, so that to gather over fsdp leaves each device its part for tensor.
_LAYERS: Rules = (
    (r"layers/attention/(query|key|value)/kernel", "-,fsdp,tensor"),
    (r"layers/attention/(query|key|value)/bias", "-,tensor+fsdp"),
    (r"layers/attention/output/kernel", "-,tensor,fsdp"),
    (r"layers/mlp/fc1/kernel", "-,fsdp,tensor"),
    (r"layers/mlp/fc1/bias", "-,tensor+fsdp"),
    (r"layers/mlp/fc2/kernel", "-,tensor,fsdp"),
    (r"layers/.*", "fsdp"),  # norms, and the biases that are added to a sum
)
_EMBEDDINGS: Rules = ((r"[^/]*embedding", "tensor+fsdp"),)
_ENDS: Rules = ((r"projection/kernel", "fsdp,tensor"), (r".*", "fsdp"))

VIT: Rules = (*_LAYERS, *_EMBEDDINGS, (r"patch/kernel", "tensor+fsdp"), *_ENDS)

CLIP_TEXT: Rules = (*_LAYERS, *_EMBEDDINGS, *_ENDS)

BERT: Rules = (*_LAYERS, *_EMBEDDINGS, *_ENDS)
"""XLM-R's too: its 250002 rows are divisible by nothing useful, so that its embedding is split along the width."""

BERT_WITH_HEAD: Rules = ((r"head/kernel", "-,tensor"), *BERT)
"""AltCLIP's. Split over fsdp as well, the head makes XLA gather whole batches (jax 0.10)."""

RESNET: Rules = (
    # conv_2 and conv_3 of a block are a pair like fc1 and fc2; the other convolutions make their own outputs.
    (r"stage_.*/conv_3/kernel", "-,-,tensor,fsdp"),
    (r".*/(conv_.|shortcut_conv)/kernel", "-,-,fsdp,tensor"),
    (r"attention_pool/attention/(query|key|value)/kernel", "fsdp,tensor"),
    (r"attention_pool/attention/(query|key|value)/bias", "tensor+fsdp"),
    (r"attention_pool/attention/output/kernel", "tensor,fsdp"),
    (r"attention_pool/position_embedding", "tensor+fsdp"),
    (r".*", "fsdp"),
)


def rules_for(model: DualEncoderConfig, mesh: Mesh) -> Rules:
    """The rules for all of a model's parameters."""
    return (*tower_rules(model, "image", mesh), *tower_rules(model, "text", mesh), (r"logit_.*", "copy"))


def tower_rules(model: DualEncoderConfig, tower: str, mesh: Mesh) -> Rules:
    """The rules for what is under "image/" or "text/".

    A head is never cut: where "tensor" does not divide a tower's heads, its attention stays whole on that axis.
    """
    config = getattr(model, tower)
    table = _table(config, model.head_width is not None)
    if config.heads % mesh.shape["tensor"]:
        table = tuple((name, _without_tensor(at) if "attention/" in name else at) for name, at in table)
    return tuple((f"{tower}/{name}", placement) for name, placement in table)


def _table(config: VitConfig | ResNetConfig | BertConfig | ClipTextConfig, head: bool) -> Rules:
    if isinstance(config, BertConfig):
        return BERT_WITH_HEAD if head else BERT
    return {VitConfig: VIT, ResNetConfig: RESNET, ClipTextConfig: CLIP_TEXT}[type(config)]


def _without_tensor(placement: Placement) -> Placement:
    dimensions = [[axis for axis in part.split("+") if axis != "tensor"] for part in placement.split(",")]
    return ",".join("+".join(axes) or "-" for axes in dimensions)
