"""How each family of towers lies on the mesh: one table each, over the names within a tower.

Tensor parallelism is Megatron's (Shoeybi et al. 2019, section 3). Of a layer's matrices those that go in (query, key
and value, fc1) are split along their outputs, so that a device has whole heads and whole hidden units; those that go
back (output, fc2) along their inputs, so that the devices' shares need only be summed: once after the attention and
once after the perceptron. Beside that "fsdp" splits the other dimension, to be gathered where a matrix is used.

Layers are stacked, (layers, in, out), and the first axis stays whole: a scan takes one layer after another.
"""

from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.parallel.sharding import Placement, Rules

Tower = VitConfig | ResNetConfig | BertConfig | ClipTextConfig

_IN, _BACK = "-,fsdp,tensor", "-,tensor,fsdp"

_LAYERS: Rules = (
    (r"layers/attention/(query|key|value)/kernel", _IN),
    (r"layers/attention/(query|key|value)/bias", "-,tensor"),
    (r"layers/attention/output/kernel", _BACK),
    (r"layers/mlp/fc1/kernel", _IN),
    (r"layers/mlp/fc1/bias", "-,tensor"),
    (r"layers/mlp/fc2/kernel", _BACK),
    # Norms, and the biases of what goes back, which are added to the sum.
    (r"layers/.*", "fsdp"),
)

VIT: Rules = (*_LAYERS, (r".*", "fsdp+tensor"))

BERT: Rules = (*_LAYERS, (r".*", "fsdp+tensor"))

CLIP_TEXT: Rules = (*_LAYERS, (r".*", "fsdp+tensor"))

RESNET: Rules = (
    (r".*/conv_\d/kernel", "-,-,fsdp,tensor"),
    (r".*", "fsdp+tensor"),
)
