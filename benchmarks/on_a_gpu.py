"""Measures on a GPU, in minutes: attention, pairs a second beside cn_clip in PyTorch, and memory beside the plan.

    pip install "jclip[cuda,convert]"                    a torch that finds the GPU; without one cn_clip is left out
    python -m benchmarks.on_a_gpu                        ten minutes; writes on-a-gpu.json and on-a-gpu.md
    python -m benchmarks.on_a_gpu --tiny                 tries everything on a CPU, with tiny towers

It needs no files. It measures, each part in processes of its own, the most important first:

  attention  forward and backward pass of cuDNN's kernel and XLA's attention at the towers' shapes, in turns.
  training   a step of Chinese-CLIP's second stage, jclip's in bfloat16 and cn_clip's in mixed precision, in turns. Both
             are open at the same time, so the batch is the largest power of two with which both fit. Model FLOPs
             utilisation (MFU) counts the products of a step without rematerialisation, for both.
  memory     largest number of bytes in use, beside the number that the compiler planned.

The results name each part that failed, or for which no time was left, and have all other parts. Exits with 1 if a part
failed.
"""

import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks.gpu_results import Results, Row, markdown, write
from benchmarks.remote import Failed, Remote
from benchmarks.step_contenders import CnClipStep, JclipStep, Precision, recipe
from benchmarks.turns import Seconds, alternate, ratio
from jclip.cli.platforms import SHARES


class AttentionShape(NamedTuple):
    """Attention of one tower: tokens, heads, channels of a head, examples, and its mask."""

    tower: str
    tokens: int
    heads: int
    channels: int
    examples: int
    mask: str = "none"


SHAPES = (
    AttentionShape("ViT-B/16", 197, 12, 64, 128),
    AttentionShape("ViT-L/14", 257, 16, 64, 64),
    AttentionShape("ViT-L/14@336", 577, 16, 64, 32),
    AttentionShape("ViT-H/14", 257, 16, 80, 64),
    AttentionShape("RoBERTa, without dropout", 52, 12, 64, 256, "lengths"),
    AttentionShape("CLIP's text tower", 77, 12, 64, 256, "causal"),
)
"""Shapes of attention, about equal in arithmetic."""


class Comparison(NamedTuple):
    """One comparison of training steps.

    Attributes:
      size: model, by the name of its recipe.
      remat: jclip's rematerialisation.
      checkpointing: True if cn_clip uses gradient checkpointing.
    """

    size: str
    remat: str
    checkpointing: bool


COMPARISONS = (
    Comparison("vit_b_16", "dots", False),
    Comparison("vit_l_14", "dots", False),
    Comparison("vit_b_16", "none", False),
    Comparison("vit_l_14", "none", False),
    Comparison("vit_b_16", "layers", True),
    Comparison("vit_l_14", "layers", True),
)
"""Comparisons of training steps, the most important first."""

_GIB_PER_PAIR = {"vit_b_16": 0.4, "vit_l_14": 1.3}
"""GiB per pair of jclip without rematerialisation and cn_clip without checkpointing, together; rounded up."""
_OUT_OF_MEMORY = re.compile("out of memory|resource_exhausted", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Settings.

    Attributes:
      out: file name of the results, without its ending.
      budget_seconds: no part begins after this time, and one that is running is ended.
      rounds: number of turns of each contender.
      turn_seconds: duration of a turn.
      pairs: pairs of a step; 0 for a number that fits.
      precision: cn_clip's mixed precision; its training script has float16.
      tiny: use tiny towers and short turns.
    """

    out: Path = Path("on-a-gpu")
    budget_seconds: float = 600.0
    rounds: int = 5
    turn_seconds: float = 2.0
    pairs: int = 0
    precision: Precision = "float16"
    tiny: bool = False


class Session:
    """One run of the program: its options, its results, and the time that is left."""

    def __init__(self, options: Options):
        self.options, self.results, self._begun = options, Results(), time.monotonic()

    def left(self) -> float:
        """Returns the seconds of the budget that are left."""
        return self.options.budget_seconds - (time.monotonic() - self._begun)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Notes a failure within the block, and writes the results after it."""
        try:
            yield
        except Failed as failed:
            self.results.failures.append(f"{name}: {failed}")
        self.results.seconds = round(time.monotonic() - self._begun, 1)
        print(f"{self.results.seconds:6.1f} s  {name}", file=sys.stderr, flush=True)
        write(self.results, self.options.out)

    def leave_out(self, name: str, reason: str) -> None:
        """Notes that a part is left out."""
        self.results.left_out.setdefault(reason, []).append(name)

    def has_time(self, name: str, seconds: float) -> bool:
        """Returns True if `seconds` are left; notes that a part is left out if not."""
        enough = self.left() >= (0 if self.options.tiny else seconds)
        if not enough:
            self.leave_out(name, "no time is left")
        return enough


def main(options: Options) -> int:
    """Measures, writes the results, prints them, and returns the exit code."""
    _share_gpu()
    session = Session(options)
    with session.part("device"):
        session.results.device = _device(session)
    if session.results.device:
        measure_attention(session)
        for comparison in COMPARISONS:
            name = f"training {comparison.size}, {comparison.remat}"
            if session.has_time(name, 60):
                with session.part(name):
                    measure_training(session, comparison)
    write(session.results, options.out)
    print(markdown(session.results))
    return int(bool(session.results.failures))


def _share_gpu() -> None:
    """Lets two processes use a GPU: each takes memory as it needs it, up to nine tenths."""
    for name in SHARES:
        os.environ.pop(name, None)
    os.environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", SHARES[0]: "0.9"}


class Device:
    """The first device."""

    def facts(self) -> Row:
        """Returns its name, platform, memory, peak, and the versions of the libraries."""
        from importlib.util import find_spec

        import jax

        from jclip.accelerators.peaks import peak_of

        device = jax.devices()[0]
        torch_finds_it = device.platform == "cpu"
        if find_spec("torch") and find_spec("cn_clip"):
            import torch

            torch_finds_it = torch_finds_it or torch.cuda.is_available()
            versions = {"torch": torch.__version__}
        else:
            torch_finds_it, versions = False, {}
        return {
            "kind": device.device_kind,
            "platform": device.platform,
            "capability": getattr(device, "compute_capability", None),
            "bytes": (device.memory_stats() or {}).get("bytes_limit"),
            "peak": peak_of(device.device_kind),
            "cn_clip": torch_finds_it,
            "versions": {"jax": jax.__version__, **versions},
        }


def _device(session: Session) -> Row:
    with closing(Remote(Device)) as device:
        facts: Row = device.call("facts", timeout=session.left())
    if not facts["cn_clip"]:
        session.leave_out("cn_clip", "there is no torch that finds the device, or no cn_clip")
    return facts


class Attentions:
    """Forward and backward pass of attention at one shape, by each implementation."""

    def __init__(self, shape: AttentionShape):
        import jax
        import jax.numpy as jnp

        from jclip.models.attention import attend

        draw = jax.random.split(jax.random.key(0), 4)
        size = (shape.examples, shape.tokens, shape.heads, shape.channels)
        queries, keys, values, upstream = (jax.random.normal(key, size, jnp.bfloat16) for key in draw)
        lengths = jnp.arange(shape.examples) % shape.tokens + 1 if shape.mask == "lengths" else None

        def compiled(implementation: Any) -> Any:
            def passes(*inputs: jax.Array) -> Any:
                masks: Any = {"lengths_b": lengths, "causal": shape.mask == "causal"}
                mixed, gradients = jax.vjp(lambda *x: attend(*x, **masks, implementation=implementation), *inputs)
                return mixed, gradients(upstream)

            return jax.jit(passes).lower(queries, keys, values).compile()

        self._inputs, self._compile = (queries, keys, values), compiled
        self._compiled: dict[str, Any] = {}

    def open(self, implementation: str) -> None:
        """Compiles an implementation. Raises JclipError if it cannot compute this shape on this device."""
        self._compiled[implementation] = self._compile(implementation)
        self.run(implementation, 2)

    def run(self, implementation: str, times: int) -> None:
        """Computes both passes `times` times, and returns after the last."""
        import jax

        for _ in range(times):
            found = self._compiled[implementation](*self._inputs)
        jax.block_until_ready(found)


def measure_attention(session: Session) -> None:
    """Adds a row for each shape: milliseconds of both implementations, and the ratio in each round."""
    for shape in SHAPES:
        name = f"attention of {shape.tower}"
        if not session.has_time(name, 10):
            continue
        if session.options.tiny:
            shape = shape._replace(heads=2, channels=8, examples=2)
        with session.part(name), closing(Remote(Attentions, shape)) as contenders:
            contenders.call("open", "xla", timeout=session.left())
            try:
                contenders.call("open", "cudnn", timeout=session.left())
            except Failed as failed:
                session.leave_out(f"cuDNN's {name}", str(failed))
                opened = ["xla"]
            else:
                opened = ["xla", "cudnn"]
            turns = {
                each: lambda times, each=each: contenders.timed("run", each, times, timeout=session.left())
                for each in opened
            }
            seconds = measure_turns(turns, session.options)
            row = shape._asdict() | {f"{name}_ms": 1000 * statistics.median(all_) for name, all_ in seconds.items()}
            if "cudnn" in seconds:
                row |= _ratio(seconds["cudnn"], seconds["xla"])
            session.results.attention.append(row)


def measure_training(session: Session, comparison: Comparison) -> None:
    """Adds a row for a comparison. Halves the pairs of a step until both contenders fit."""
    options, device = session.options, session.results.device
    pairs = options.pairs or (4 if options.tiny else fitting(device["bytes"], _GIB_PER_PAIR[comparison.size]))
    while True:
        run = replace(recipe(comparison.size, pairs, tiny=options.tiny), remat=comparison.remat)
        try:
            session.results.training.append(_train(session, comparison, run))
            return
        except Failed as failed:
            if not _OUT_OF_MEMORY.search(str(failed)) or pairs < 16:
                raise
            pairs //= 2


def _train(session: Session, comparison: Comparison, run: Any) -> Row:
    options, device = session.options, session.results.device
    with closing(Remote(JclipStep, run)) as ours:
        ours.call("run", 2, timeout=session.left())  # the first steps allocate, and choose kernels
        facts = ours.attributes("pairs", "flops", "compile_seconds", "planned", "peak_before", timeout=session.left())
        row: Row = {**comparison._asdict(), **facts}
        turns = {"jclip": lambda times: ours.timed("run", times, timeout=session.left())}
        if not device["cn_clip"]:
            seconds = measure_turns(turns, options)
        else:
            precision = "float32" if device["platform"] == "cpu" else options.precision
            more = {"precision": precision, "checkpointing": comparison.checkpointing}
            with closing(Remote(CnClipStep, run, **more)) as theirs:
                theirs.call("run", 2, timeout=session.left())
                turns["cn_clip"] = lambda times: theirs.timed("run", times, timeout=session.left())
                seconds = measure_turns(turns, options)
                row |= {"cn_clip_peak": theirs.call("peak", timeout=session.left()), "cn_clip_precision": precision}
                row |= _ratio(seconds["jclip"], seconds["cn_clip"])
        row["jclip_peak"] = ours.call("peak", timeout=session.left())
    for name, each in seconds.items():
        median = statistics.median(each)
        row[f"{name}_pairs_per_second"] = row["pairs"] / median
        row[f"{name}_mfu"] = row["flops"] / median / device["peak"] if device["peak"] else None
    return row


def fitting(memory: int | None, gib_per_pair: float) -> int:
    """Returns the largest power of two of pairs with which a step takes at most nine tenths of the memory.

    Returns 8 if the memory is unknown.

    >>> fitting(80 * 2**30, 0.4), fitting(None, 0.4)
    (128, 8)
    """
    pairs = 8
    while memory and 2 * pairs * gib_per_pair * 2**30 <= 0.9 * memory:
        pairs *= 2
    return pairs


Turn = Callable[[int], float]
"""Function that repeats something a number of times, and returns the seconds of all of it."""


def measure_turns(turns: dict[str, Turn], options: Options) -> Seconds:
    """Returns the seconds of one repetition, by contender and round."""
    rounds, length = (2, 0.0) if options.tiny else (options.rounds, options.turn_seconds)
    times = {name: max(1, round(length / turn(1))) for name, turn in turns.items()}
    return alternate({name: partial(_mean, turn, times[name]) for name, turn in turns.items()}, rounds)


def _mean(turn: Turn, times: int) -> float:
    return turn(times) / times


def _ratio(ours: list[float], theirs: list[float]) -> Row:
    """Returns the ratio of the speed of the first to that of the second: its median and its extremes."""
    found = ratio(ours, theirs)
    return {"ratio": found.median, "lowest": found.lowest, "highest": found.highest}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
