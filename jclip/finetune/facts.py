"""Facts about the data, the model and the machine, on which the choices are based."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jclip import rules
from jclip.bundle import Bundle
from jclip.data.sources.folders import PairFolder
from jclip.errors import JclipError
from jclip.images.opening import cores
from jclip.io.machine import free_memory
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.tokenizers.text import Tokenizer

MOST_READ = 5_000
"""Maximum number of records read from a split. More would take minutes and change no choice."""

_ONE_WAY = re.compile(
    r"[左右]|文字|汉字|字母|字样|写着|印着|\b(left|right|text|letters?|words?|sign|reads)\b", re.IGNORECASE
)
_COLOURS = re.compile(
    r"[红橙黄绿青蓝紫粉棕灰黑白]|\b(red|orange|yellow|green|blue|purple|pink|brown|gr[ae]y|black|white)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class DataFacts:
    """Facts about a data folder.

    Attributes:
      train, valid: images in each of the two splits.
      pairs: images of "train", each with each of its captions.
      distinct: different captions in the records that were read.
      usual, longest: tokens of a caption, special ones included: 95th percentile and maximum.
      one_way: share of captions that mention left, right or writing, which a flip makes wrong.
      colours: share of captions that name a colour.
    """

    train: int
    valid: int
    pairs: int
    distinct: int
    usual: int
    longest: int
    one_way: float = 0.0
    colours: float = 0.0


@dataclass(frozen=True)
class TowerFacts:
    """Facts about a tower.

    Attributes:
      parameters: number of parameters.
      worked: number of parameters used for every token: all except embedding tables.
      tokens: number of tokens of an image, or of a text of full length; for a ResNet the number with equal FLOPs.
      kept: bytes of activations that one image or text of full length keeps for the backward pass, in 16 bits.
      layers: number of layers; 0 for a ResNet.
    """

    parameters: int
    worked: int
    tokens: int
    kept: int
    layers: int


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a bundle.

    Attributes:
      image, text: the towers.
      context_length: tokens of the longest text.
      has_statistics: True if the image tower has batch statistics, which need the whole batch at once.
      white: True if transparent pixels and borders are white.
    """

    image: TowerFacts
    text: TowerFacts
    context_length: int
    has_statistics: bool = False
    white: bool = False

    @property
    def parameters(self) -> int:
        """Number of parameters of both towers."""
        return self.image.parameters + self.text.parameters


@dataclass(frozen=True)
class Machine:
    """The machine of the run.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      devices: number of devices.
      cores: CPU cores of the host.
      memory: usable bytes of one device.
      memory_from: source of that figure, in words.
      rate: FLOP/s that training sustains on all devices.
    """

    platform: str
    devices: int
    cores: int
    memory: int
    memory_from: str
    rate: float


@dataclass(frozen=True)
class Start:
    """Mean recall of the starting bundle on the validation split, and that of chance."""

    recall: float
    chance: float

    @property
    def skill(self) -> float:
        """Recall on a scale from 0, chance, to 1, perfect."""
        return min(max((self.recall - self.chance) / max(1 - self.chance, 1e-9), 0.0), 1.0)


def read_data(folder: Path, tokenizer: Tokenizer, context_length: int) -> DataFacts:
    """Reads captions of the splits "train" and "valid". Raises JclipError if a split is missing or too small."""
    train = PairFolder(str(folder), "train").open()
    valid = PairFolder(str(folder), "valid").open()
    looked = [train[i].captions for i in _spread(len(train))]
    counts = [len(captions) for captions in looked]
    texts = [text.strip() for captions in looked for text in captions]
    lengths = [len(ids) for ids in tokenizer.encode(texts, context_length)] or [0]
    facts = DataFacts(
        train=len(train),
        valid=len(valid),
        pairs=round(len(train) * sum(counts) / max(len(counts), 1)),
        distinct=len(set(texts)),
        usual=int(np.ceil(np.quantile(lengths, 0.95))),
        longest=max(lengths),
        one_way=_share(_ONE_WAY, texts),
        colours=_share(_COLOURS, texts),
    )
    check_data(folder, facts, {text for i in _spread(len(valid)) for text in valid[i].captions})
    return facts


def check_data(folder: Path, facts: DataFacts, asked: set[str]) -> None:
    """Raises JclipError if the splits of `folder` are too small to train and evaluate on, or their captions all equal.

    `facts` are those of the folder, `asked` the different captions of its validation split.
    """
    if facts.train < 2:
        raise JclipError(
            f"{folder}: {facts.train} image(s) to train on; contrastive training needs at least 2, better 100"
        )
    if facts.distinct < 2:
        raise JclipError(
            f"{folder}: all captions to train on are equal, so they distinguish no image: give each image its own"
        )
    if facts.valid < 2 or len(asked) < 2:
        what = f"{facts.valid} image(s)" if facts.valid < 2 else "one caption"
        raise JclipError(
            f"{folder}: its split valid has {what}, so every model scores 100 % on it: give it two or more of each"
        )


def _spread(count: int) -> Sequence[int]:
    """Returns the numbers of the records to read, evenly spaced."""
    return range(count) if count <= MOST_READ else np.linspace(0, count - 1, MOST_READ, dtype=int).tolist()


def _share(pattern: re.Pattern[str], texts: Sequence[str]) -> float:
    return sum(bool(pattern.search(text)) for text in texts) / max(len(texts), 1)


def read_model(bundle: Bundle) -> ModelFacts:
    """Reads the facts about a bundle. Raises JclipError if it is a text encoder only."""
    config = bundle.config
    if not isinstance(config, DualEncoderConfig) or bundle.preprocessing is None:
        raise JclipError("the bundle is only a text encoder: fine-tuning needs both towers, so name another bundle")
    leaves = rules.paths_of(bundle.params)
    image, text = config.image, config.text
    picture = _tower(leaves, "image/", image.tokens, image.activation_bytes, image.depth)
    length = bundle.context_length
    words = _tower(leaves, "text/", length, text.activation_bytes(length), text.depth)
    white = bundle.preprocessing.background == (255, 255, 255)
    return ModelFacts(picture, words, length, image.has_statistics, white)


def _tower(leaves: dict[str, Any], prefix: str, tokens: int, kept: int, layers: int) -> TowerFacts:
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in leaves.items() if path.startswith(prefix)}
    worked = sum(size for path, size in sizes.items() if "embedding" not in path)
    return TowerFacts(sum(sizes.values()), worked, tokens, kept, layers)


_CPU_SHARE = 0.5  # usable share of the free memory; images, Python and XLA need the rest
_DEVICE_SHARE = 0.8
_SUSTAINED = 1 / 3  # share of the speed of a large matrix product that training reaches


def read_machine() -> Machine:
    """Queries the devices and times a matrix product on one of them."""
    device = jax.local_devices()[0]
    devices = jax.device_count()
    known = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    if known:
        memory, source = int(_DEVICE_SHARE * known), f"{_DEVICE_SHARE:.0%} of what the device reports"
    elif device.platform == "cpu":
        memory, source = int(_CPU_SHARE * free_memory() / devices), f"{_CPU_SHARE:.0%} of the memory that is free"
    else:
        memory, source = int(_DEVICE_SHARE * 16 * 2**30), "a guess of 16 GiB: the device does not report it"
    rate = _SUSTAINED * _matmul_rate(device) * (1 if device.platform == "cpu" else devices)
    return Machine(device.platform, devices, cores(), memory, source, rate)


def _matmul_rate(device: jax.Device) -> float:
    """Measures the FLOP/s of a matrix product in the dtype of training."""
    side, dtype = (1024, jnp.float32) if device.platform == "cpu" else (8192, jnp.bfloat16)
    matrix = jax.device_put(jnp.ones((side, side), dtype), device)
    product = jax.jit(lambda x: x @ x)
    product(matrix).block_until_ready()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        product(matrix).block_until_ready()
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times)
