"""cn_clip's own classification program with a small model: `python -m tests.evaluate.small_cn_clip ARGUMENTS`."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from jclip.conversion.parity import peers

SIZES = {
    "embed_dim": 16,
    "vision_layers": 1,
    "vision_width": 64,
    "vision_patch_size": 32,
    "text_num_hidden_layers": 1,
    "text_hidden_size": 64,
    "text_num_attention_heads": 1,
    "text_intermediate_size": 64,
}
"""Replace the sizes of ViT-B-16 and RoBERTa, except the vocabulary and the image size."""


def model():
    """Returns the model, with random weights that keep its features apart."""
    import json

    import cn_clip.clip.model
    import torch

    from tests.models.torch_weights import randomise

    configs = Path(cn_clip.clip.model.__file__).parent / "model_configs"
    sizes = {}
    for name in ("ViT-B-16", "RoBERTa-wwm-ext-base-chinese"):
        sizes |= json.loads((configs / f"{name}.json").read_text())
    torch.manual_seed(0)
    return randomise(cn_clip.clip.model.CLIP(**{**sizes, **SIZES}))


def _main() -> None:
    peers.make_importable()
    import cn_clip.clip.model
    import torch

    whole, tensor_to = cn_clip.clip.model.CLIP, torch.Tensor.to
    cn_clip.clip.model.CLIP = lambda **sizes: whole(**{**sizes, **SIZES})
    torch.cuda.set_device = lambda device: None
    torch.nn.Module.cuda = lambda self, device=None: self
    torch.Tensor.to = lambda self, *a, **k: self if a and type(a[0]) is int else tensor_to(self, *a, **k)
    # Its accuracy turns an array of one number into that number, which numpy 2.4 no longer does.
    torch.Tensor.cpu = lambda self: self[0] if self.shape == (1,) else self
    sys.argv[0] = str(Path(find_spec("cn_clip").submodule_search_locations[0]) / "eval" / "zeroshot_evaluation.py")
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _main()
