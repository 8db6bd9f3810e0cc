"""Description of one kind of tower in the formats of PyTorch libraries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]


@dataclass(frozen=True)
class TowerFormat:
    """Kind of tower in the formats of PyTorch libraries. A function is None if the library has no such tower.

    Attributes:
      title: Name for messages, such as "a ViT".
      hf: Returns the tower's part of transformers' config.json.
      cn_clip: Returns the tower's arguments of cn_clip's CLIP class.
      cn_clip_needs: Returns what a cn_clip checkpoint fixes and this tower has otherwise; "" if nothing.
      open_clip: Returns the fields of open_clip's CLIPVisionCfg or CLIPTextCfg.
      openai_layers: Returns {our path of a layer: their module} in OpenAI's layout; "{i}" means all layers.
      resize: Returns the tower at another image size, in pixels, and the side of its grid of positions.
      telling_keys: Returns keys from which a family's mapping table learns the number of blocks.
      token_embedding: Path of a text tower's token embedding.
      ends_in_largest_id: True if the largest id of a text marks its end, and padding follows.
    """

    title: str
    hf: Callable[[Any], Fields] | None = None
    cn_clip: Callable[[Any], Fields] | None = None
    cn_clip_needs: Callable[[Any], str] = lambda config: ""
    open_clip: Callable[[Any], Fields] | None = None
    openai_layers: Callable[[Any], Mapping[str, str]] | None = None
    resize: Callable[[Any, int], tuple[Any, int]] | None = None
    telling_keys: Callable[[Any], tuple[str, ...]] = lambda config: ()
    token_embedding: str = "text/word_embedding"
    ends_in_largest_id: bool = False
