"""Description of one kind of tower in the formats of PyTorch libraries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]


@dataclass(frozen=True)
class TowerFormat:
    """Kind of tower in the formats of PyTorch libraries.

    Functions take the tower's configuration. A function is None if its library has no such tower.

    Attributes:
      title: name for messages, such as "a ViT".
      hf: returns the tower's part of transformers' config.json.
      cn_clip: returns the tower's arguments of cn_clip's CLIP class.
      cn_clip_needs: returns an error message if the tower differs in a setting that cn_clip fixes; else "".
      open_clip: returns the fields of open_clip's CLIPVisionCfg or CLIPTextCfg.
      openai_layers: returns {our path of a layer: their module} in OpenAI's layout; "{i}" means all layers.
      resize: returns the configuration at another image size in pixels, and the side of its grid of patches.
      depth_keys: returns keys from which a family's mapping table infers the number of blocks.
      token_embedding: path of a text tower's token embedding.
      ends_in_largest_id: True if the largest id of a text marks its end, and padding follows.
    """

    title: str
    hf: Callable[[Any], Fields] | None = None
    cn_clip: Callable[[Any], Fields] | None = None
    cn_clip_needs: Callable[[Any], str] = lambda config: ""
    open_clip: Callable[[Any], Fields] | None = None
    openai_layers: Callable[[Any], Mapping[str, str]] | None = None
    resize: Callable[[Any, int], tuple[Any, int]] | None = None
    depth_keys: Callable[[Any], tuple[str, ...]] = lambda config: ()
    token_embedding: str = "text/word_embedding"
    ends_in_largest_id: bool = False
