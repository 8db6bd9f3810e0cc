"""Facts that the choices rest on: of the data, of the model, of the machine."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
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
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.tokenizers.text import Tokenizer

MOST_READ = 5_000
"""Records of a split that are read for the facts: more would take minutes, and change no choice."""

_ONE_WAY = re.compile(
    r"[左右]|文字|汉字|字母|字样|写着|印着|\b(left|right|text|letters?|words?|sign|reads)\b", re.IGNORECASE
)
_COLOURS = re.compile(
    r"[红橙黄绿青蓝紫粉棕灰黑白]|\b(red|orange|yellow|green|blue|purple|pink|brown|gr[ae]y|black|white)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class DataFacts:
    """A data folder.

    Attributes:
      train, valid: pictures in each of the two splits.
      pairs: pictures of "train", each with each of its captions.
      distinct: different captions in "train", or among its first records where it is large.
      usual, longest: tokens of captions, special ones included: of 95 % at most, and of all.
      one_way: share of captions that speak of left, right, or writing, which a mirror turns.
      colours: share of captions that name a colour.
      all_read: whether all records were read, or `MOST_READ` of each split, spread evenly.
    """

    train: int
    valid: int
    pairs: int
    distinct: int
    usual: int
    longest: int
    one_way: float = 0.0
    colours: float = 0.0
    all_read: bool = True


@dataclass(frozen=True)
class TowerFacts:
    """A tower.

    Attributes:
      parameters: all of them.
      worked: parameters that meet every token: all except embedding tables.
      tokens: that a picture or a text of full length becomes; of a ResNet the number with as much arithmetic.
      kept: bytes that one picture or text of full length leaves for the backward pass, computing in 16 bits.
      layers: 0 for a ResNet.
    """

    parameters: int
    worked: int
    tokens: int
    kept: int
    layers: int


@dataclass(frozen=True)
class ModelFacts:
    """A bundle.

    Attributes:
      image, text: its towers.
      context_length: tokens of the longest text.
      resnet: whether the image tower is a ResNet, whose batch norm needs the whole batch at once.
      white: whether transparent pixels and borders are white.
    """

    image: TowerFacts
    text: TowerFacts
    context_length: int
    resnet: bool = False
    white: bool = False

    @property
    def parameters(self) -> int:
        """Parameters of both towers."""
        return self.image.parameters + self.text.parameters


@dataclass(frozen=True)
class Machine:
    """Where the run will be.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      devices: their number.
      cores: of the host, for reading pictures.
      memory: bytes of one device that a run may use.
      memory_from: how that is known, in words.
      rate: multiplications and additions a second that training sustains on all devices.
    """

    platform: str
    devices: int
    cores: int
    memory: int
    memory_from: str
    rate: float


@dataclass(frozen=True)
class Start:
    """How well the starting bundle does on the validation split: mean recall, and what chance gives."""

    recall: float
    chance: float

    @property
    def skill(self) -> float:
        """Share of the way from chance to perfect that the start has come: 0 to 1."""
        return min(max((self.recall - self.chance) / max(1 - self.chance, 1e-9), 0.0), 1.0)


def read_data(folder: Path, tokenizer: Tokenizer, context_length: int) -> DataFacts:
    """Reads captions of the splits "train" and "valid".

    Raises:
      JclipError: a split is missing, or there is too little to learn from or to measure on.
    """
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
        all_read=len(looked) == len(train),
    )
    check_data(folder, facts, {text for i in _spread(len(valid)) for text in valid[i].captions})
    return facts


def check_data(folder: Path, facts: DataFacts, asked: set[str]) -> None:
    """Checks that there is something to learn and something to measure.

    Args:
      folder: for messages.
      facts: of it.
      asked: captions of the validation split.

    Raises:
      JclipError: too few pictures, or captions that do not differ.
    """
    if facts.train < 2:
        raise JclipError(
            f"{folder}: {facts.train} picture(s) to train on, which have no others to be told from: bring 2 or more, "
            "better 100"
        )
    if facts.distinct < 2:
        raise JclipError(
            f"{folder}: all captions to train on are equal, so no picture can be told from another: give each its own "
            "words"
        )
    if facts.valid < 2 or len(asked) < 2:
        what = f"{facts.valid} picture(s)" if facts.valid < 2 else "one caption"
        raise JclipError(
            f"{folder}: its split valid has {what}, which nobody can mistake, so it measures nothing: put more into it"
        )


def _spread(count: int) -> Sequence[int]:
    """Numbers of records to be read, spread evenly."""
    return range(count) if count <= MOST_READ else np.linspace(0, count - 1, MOST_READ, dtype=int).tolist()


def _share(pattern: re.Pattern[str], texts: Sequence[str]) -> float:
    return sum(bool(pattern.search(text)) for text in texts) / max(len(texts), 1)


def read_model(bundle: Bundle) -> ModelFacts:
    """Counts what a bundle holds.

    Raises:
      JclipError: it is a text encoder alone.
    """
    config = bundle.config
    if not isinstance(config, DualEncoderConfig) or bundle.preprocessing is None:
        raise JclipError("the bundle is a text encoder alone: fine-tuning needs both towers, so name another one")
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


_CPU_SHARE = 0.5  # of the memory that is free: the pictures, Python and XLA itself need the rest
_DEVICE_SHARE = 0.8
_SUSTAINED = 1 / 3  # of a large product of matrices: what training reaches of it


def read_machine() -> Machine:
    """Asks the devices, and times a product of matrices on one of them."""
    device = jax.local_devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = jax.device_count()
    known = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    if known:
        memory, source = int(_DEVICE_SHARE * known), f"{_DEVICE_SHARE:.0%} of what the device reports"
    elif device.platform == "cpu":
        memory, source = int(_CPU_SHARE * _free_memory() / devices), f"{_CPU_SHARE:.0%} of the memory that is free"
    else:
        memory, source = int(_DEVICE_SHARE * 16 * 2**30), "a guess of 16 GiB: the device does not report it"
    rate = _SUSTAINED * _matmul_rate(device) * (1 if device.platform == "cpu" else devices)
    return Machine(device.platform, devices, cores, memory, source, rate)


def _matmul_rate(device: jax.Device) -> float:
    """Operations a second of a product of two matrices, in the dtype in which training computes there."""
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


def _free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of its container where that is less."""
    free = [_machine_free()]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        free.append(int(limit.read_text(encoding="utf-8")) - int(used.read_text(encoding="utf-8")))
    return max(min(free), 2**28)


def _machine_free() -> int:
    with suppress(OSError, ValueError):  # not Linux
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 * 2**30
