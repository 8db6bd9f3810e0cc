"""Speed of training and inference on CPUs in float32: jclip beside PyTorch, with the same weights and batches.

    python -m benchmarks.train_step                                 some minutes; 3 GB of disk, 8 GB of memory
    python -m benchmarks.train_step --rows everything "1 text" --rounds 5

Training is Chinese-CLIP ViT-B/16 with AdamW, beside cn_clip's model: the stage with both towers and 8 pairs, and the
stage with the image tower frozen and 16 pairs, with dropout. Before it is timed, both compute two steps without
dropout. The first losses compare the forward passes, the second losses the gradients and the update. Inference is
compared with transformers. Teacher learning, AltCLIP's first stage, is that of benchmarks/teacher_learning.py.

Each program runs in its own process, with the same number of threads, and takes turns with the other. A ratio is
PyTorch's time over jclip's in the same round. Exits with 1 if a median is below its aim. Weights are random.
"""

import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import tyro

from benchmarks.captions import CHINESE
from benchmarks.contenders import CONTENDERS, open_torch, write_weights
from benchmarks.decode import photographs
from benchmarks.inference import Options as InferenceOptions
from benchmarks.inference import check, opened
from benchmarks.remote import call_apart
from benchmarks.step_contenders import cn_clip_loss, cn_clip_optimizer
from benchmarks.turns import Compute, Ratio, Seconds, open_programs, ratio, take_turns

NAME, CONTEXT = "chinese-clip-vit-b-16", 52
RowName = Literal["everything", "image-frozen", "16 images", "64 texts", "1 image", "1 text", "teacher"]
_DIFFERENCES = (1e-5, 1e-3)
"""Maximum relative differences of the losses of the first and the second step."""


@dataclass(frozen=True)
class Options:
    """Settings of the comparison.

    Attributes:
      rows: rows of the table: the stages by their names, numbers of images and texts, and teacher learning.
      rounds: number of turns of each program.
      threads: processors that each program may use.
      cpu: measure processor seconds instead of time. With one thread they depend little on what else runs.
      wheels: folder of the wheel with teacher learning's names; by default the demo's.
      keep: folder for the model, which a later run reuses; by default it is removed.
    """

    rows: tuple[RowName, ...] = get_args(RowName)
    rounds: int = 5
    threads: int = 2
    cpu: bool = False
    wheels: Path = Path("runs/demo/data/wheels")
    keep: Path | None = None


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      theirs: name of the other library.
      aim: minimum of the median ratio.
      measure: function of the model's folder and the options -> seconds of "jclip" and of `theirs`.
    """

    theirs: str
    aim: float
    measure: Callable[[Path, Options], Seconds]


def main(options: Options) -> int:
    """Measures the rows, prints a table, and returns the exit code."""
    missed, lines = False, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)) / NAME
        if not folder.is_dir() and set(options.rows) != {"teacher"}:
            call_apart(write_weights, NAME, folder)
        for name in options.rows:
            row = ROWS[name]
            seconds = row.measure(folder, options)
            faster = ratio(seconds["jclip"], seconds[row.theirs])
            medians = [f"{1000 * statistics.median(seconds[each]):,.0f}" for each in (row.theirs, "jclip")]
            lines.append(f"| {name} | {row.theirs} | {' | '.join(medians)} | {faster} | {row.aim} |")
            print(lines[-1], file=sys.stderr, flush=True)
            missed |= _missed(name, faster, row.aim)
    print("| | library | its ms | jclip's ms | ratio | aim |\n|---|---|---:|---:|---|---:|", *lines, sep="\n")
    return int(missed)


def _missed(name: str, faster: Ratio, aim: float) -> bool:
    if faster.median < aim:
        print(f"{name}: {faster.median:.2f} times as fast, less than {aim}", file=sys.stderr)
    return faster.median < aim


def stage(name: str, pairs: int, folder: Path, options: Options) -> Seconds:
    """Measures a step of one of Chinese-CLIP's stages."""
    batch = {"image": photographs_of(pairs), "text": token_ids(folder, texts(pairs))}
    opens = {"jclip": partial(jclip_stage, folder, name), "cn_clip": partial(cn_clip_stage, folder, name, options)}
    with open_programs(opens, options.threads, options.cpu) as programs:
        compared = Steps(batch, count=2, dropout=False)
        ours, theirs = (each.call("compute", compared) for each in programs.values())
        differences = [abs(own - other) / other for own, other in zip(ours, theirs, strict=True)]
        shown = ", ".join(f"{each:.1e}" for each in differences)
        print(f"{name}: losses {ours} and {theirs}, relative differences {shown}", file=sys.stderr)
        if any(not each <= most for each, most in zip(differences, _DIFFERENCES, strict=True)):
            raise SystemExit(f"{name}: the losses differ by {shown}, more than {_DIFFERENCES}")
        for each in programs.values():
            each.call("compute", Steps(batch, count=1, dropout=True))
        return take_turns(programs, options.rounds)


def inference(tower: str, count: int, folder: Path, options: Options) -> Seconds:
    """Measures the encoding of a batch."""
    batch: Any = photographs_of(count) if tower == "image" else texts(count)
    settings = InferenceOptions(threads=options.threads)
    compared = [each for each in CONTENDERS if each.name in ("jclip", "transformers")]
    opens = {each.name: partial(opened, each, folder, settings) for each in compared}
    with open_programs(opens, options.threads, options.cpu) as programs:
        check(programs, compared, tower, batch)
        return take_turns(programs, options.rounds)


def teacher(folder: Path, options: Options) -> Seconds:
    """Measures teacher learning: seconds of a sentence."""
    from benchmarks import teacher_learning

    del folder
    settings = teacher_learning.Options(rounds=options.rounds, wheels=options.wheels)
    found = {each.name: each for each in teacher_learning.measured(settings)}
    by_name = {"jclip": teacher_learning.BOTH, "transformers": teacher_learning.PEER}
    return {name: [1 / speed for speed in found[other].speeds] for name, other in by_name.items()}


ROWS: dict[RowName, Row] = {
    "everything": Row("cn_clip", 1.1, partial(stage, "everything", 8)),
    "image-frozen": Row("cn_clip", 1.1, partial(stage, "image-frozen", 16)),
    "16 images": Row("transformers", 1.1, partial(inference, "image", 16)),
    "64 texts": Row("transformers", 1.1, partial(inference, "text", 64)),
    "1 image": Row("transformers", 1.1, partial(inference, "image", 1)),
    "1 text": Row("transformers", 1.1, partial(inference, "text", 1)),
    "teacher": Row("transformers", 4.0, teacher),
}


class Steps(NamedTuple):
    """Optimizer steps on one batch: uint8 images (b, h, w, 3) and token ids (b, l); their result is the losses."""

    batch: dict[str, np.ndarray]
    count: int
    dropout: bool


def jclip_stage(folder: Path, name: str) -> Callable[[Steps], Compute]:
    """Opens one of Chinese-CLIP's stages in jclip."""
    import jax

    from jclip.parallel.memory import least_device_memory
    from jclip.train.assembly import assemble, devices_of
    from jclip.train.planning.remat import choose_remat
    from jclip.train.planning.stage_plan import device_bytes

    def prepare(steps: Steps) -> Compute:
        run = _run(folder, len(steps.batch["text"]), steps.dropout)
        devices = devices_of(run)
        part = assemble(run, [each.name for each in run.stages].index(name), devices)
        part = choose_remat(part, least_device_memory(), device_bytes).part
        numbers = np.arange(len(steps.batch["text"]), dtype=np.int32)
        batch = part.place({**steps.batch, "image_id": numbers, "text_id": numbers, "example": numbers})
        key = jax.random.key(0)
        with jax.set_mesh(devices.mesh):
            state = part.taken_of(part.start())

        def compute() -> list[float]:
            nonlocal state
            losses = []
            with jax.set_mesh(devices.mesh):
                for _ in range(steps.count):
                    state, metrics = part.compiled(state, {}, batch, key)
                    losses.append(float(metrics["loss"]))
                jax.block_until_ready(state)
            return losses

        return compute

    return prepare


def cn_clip_stage(folder: Path, name: str, options: Options) -> Callable[[Steps], Compute]:
    """Opens one of Chinese-CLIP's stages as cn_clip trains it, with the weights in float32."""
    torch = open_torch(options.threads)
    from cn_clip.clip.utils import create_model

    from benchmarks.contenders import normalised

    weights = torch.load(folder / "clip_cn.pt", weights_only=True)["state_dict"]
    weights = {key.removeprefix("module."): value for key, value in weights.items() if "bert.pooler" not in key}
    settings = next(each.optimizer for each in _run(folder, 1, dropout=True).stages if each.name == name)

    def prepare(steps: Steps) -> Compute:
        with contextlib.redirect_stdout(io.StringIO()):
            model = create_model("ViT-B-16@RoBERTa-wwm-ext-base-chinese").float()
        model.load_state_dict(weights)
        model.train(steps.dropout)
        model.visual.requires_grad_(name == "everything")
        optimizer = cn_clip_optimizer(model, settings)
        images = torch.from_numpy(normalised(steps.batch["image"]).transpose(0, 3, 1, 2).copy())
        ids = torch.from_numpy(steps.batch["text"].astype(np.int64))

        def compute() -> list[float]:
            losses = []
            for _ in range(steps.count):
                optimizer.zero_grad()
                loss = cn_clip_loss(model, images, ids)
                loss.backward()
                optimizer.step()
                model.logit_scale.data.clamp_(0, np.log(100))
                losses.append(loss.item())
            return losses

        return compute

    return prepare


def _run(folder: Path, pairs: int, dropout: bool) -> Any:
    """Returns the recipe's run from the model in a folder: in float32, with a constant learning rate."""
    from jclip.configs.chinese_clip.recipe import pretraining

    run = pretraining("vit_b_16")
    stages = tuple(
        replace(
            each,
            batch_size=pairs,
            dropout=dropout,
            optimizer=replace(each.optimizer, warmup_steps=0, schedule="constant"),
        )
        for each in run.stages
    )
    return replace(run, stages=stages, dtype="float32", starts_from=((r".*", str(folder / "bundle")),))


def photographs_of(count: int) -> np.ndarray:
    """Returns images as the model takes them, uint8 (n, 224, 224, 3)."""
    from jclip.images.preprocess import Preprocessing, to_array

    return np.stack([to_array(Preprocessing(resize="squash"), picture) for picture in photographs(count, 500)])


def texts(count: int) -> list[str]:
    """Returns texts of 5 to 30 characters, the first of 12."""
    whole = "，".join(CHINESE)
    cuts = ((11 * i % (len(whole) - 30), 5 + (7 * i + 7) % 26) for i in range(count))
    return [whole[start : start + length] for start, length in cuts]


def token_ids(folder: Path, sentences: Sequence[str]) -> np.ndarray:
    """Returns token ids padded to the recipe's length, as both programs train, int32 (n, 52)."""
    from jclip.tokenizers.text import load_tokenizer, pad

    tokenizer = load_tokenizer(folder / "bundle" / "tokenizer")
    return pad(tokenizer.encode(sentences, CONTEXT), CONTEXT, tokenizer.pad_id)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
