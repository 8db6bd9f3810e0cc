"""Writes a plan as a configuration file, to be edited and run with `jclip train`.

Paths are the only text from outside; they are written as Python strings, never into comments.
"""

import math
import re
from pathlib import Path

from jclip.finetune.choices import Choice, Settings, StageSettings
from jclip.finetune.facts import DataFacts, Machine, ModelFacts

VALID = "valid"
"""Name of the evaluation on the validation split, and of the split."""


def configuration(
    plan: Settings,
    data: DataFacts,
    model: ModelFacts,
    machine: Machine,
    *,
    bundle: str,
    converted: bool,
    folder: Path,
    here: Path,
    seed: int,
    headline: str,
) -> str:
    """Returns the text of finetune.py, which is written into folder `here`.

    The run starts from `bundle`, or from its conversion in the cache if it is `converted`. If the data's `folder` is
    inside `here`, its path is relative. `headline` is the name of the figure that selects the best checkpoint.
    """
    why = {choice.name: choice for choice in plan.table}
    total = sum(stage.steps(data.pairs, plan.batch_size) for stage in plan.stages)
    every = max(1, math.ceil(total / plan.evaluations))
    stages = "\n".join(_stage(stage, plan, data, model, machine, why) for stage in plan.stages)
    folder, here = folder.resolve(), here.resolve()
    inside = folder.is_relative_to(here)
    place = f"str(HERE / {_quoted(folder.relative_to(here))})" if inside else _quoted(folder)
    names = ", ".join(_variable(stage) for stage in plan.stages)
    return f'''"""Fine-tuning on your own images, as `jclip finetune` chose it.

The same `jclip finetune` command resumes with this file. To change a choice, edit this file or a copy beside it and
run it in another folder:

    jclip train finetune.py --workdir another
"""

from pathlib import Path

{_imports(stages, converted)}

HERE = Path(__file__).resolve().parent
START = {f"str(local_bundle({_quoted(bundle)}))  # converted, in the cache" if converted else _quoted(bundle)}
DATA = {place}


def config() -> Run:
    """Returns the run."""
    start = open_bundle(START)  # the run keeps its towers, tokenizer and preprocessing
{stages}
    return Run(
        name="finetune",
        model=start.config,
        tokenizer=f"{{START}}/tokenizer",
        preprocessing=start.preprocessing,
        stages=({names},),
        starts_from=((r".*", START),),
        seed={seed},
        dtype="{plan.dtype}",  # {why["arithmetic"].why}
        evaluations=(Retrieval("{VALID}", DATA, split="{VALID}"),),
        evaluate_every={every},  # steps: {plan.evaluations} times in all
        checkpoint_every={5 * every},
        best="{headline}",  # the best checkpoint becomes the bundle "best"
        patience={plan.patience},  # a stage ends after this number of evaluations without improvement
    )
'''


_MODULES = {
    "Augmentation": "jclip.images.on_device",
    "PairFolder": "jclip.data.sources.folders",
    "HostAugmentation": "jclip.images.on_host",
    "ContrastiveLoss": "jclip.losses.contrastive",
}


def _imports(stages: str, converted: bool) -> str:
    """Returns the import lines that the stages and the starting model need."""
    used = [f"from {module} import {name}" for name, module in _MODULES.items() if re.search(rf"\b{name}\(", stages)]
    always = "from jclip.train import Budget, Contrastive, Optimizer, Retrieval, Run, Stage"
    loading = ["from jclip.loading import local_bundle"] if converted else []
    return "\n".join(["from jclip.bundle import open_bundle", *used, *loading, always])


def _quoted(path: Path | str) -> str:
    """Returns a path as a Python string, in double quotes if it needs no escapes."""
    text = str(path)
    return f'"{text}"' if text.isprintable() and not set(text) & set('"\\') else repr(text)


def _variable(stage: StageSettings) -> str:
    return stage.name.replace("-", "_")


def _stage(
    stage: StageSettings, plan: Settings, data: DataFacts, model: ModelFacts, machine: Machine, why: dict[str, Choice]
) -> str:
    steps = stage.steps(data.pairs, plan.batch_size)
    trains = '((r".*", True),)' if stage.image else '((r"image/.*", False), (r".*", True))'
    ring = machine.devices > 1 and plan.batch_size >= 2048
    inside = [
        *(['loss=ContrastiveLoss(impl="ring"),  # never holds all logits at once'] if ring else []),
        *(['captions="all",  # each of an image\'s captions in every epoch'] if data.pairs > data.train else []),
        *([] if stage.cached else _augmentation(plan, model, why)),
    ]
    lines = [
        f'name="{stage.name}",',
        *_objective(inside),
        'data=(PairFolder(DATA, "train"),),',
        f"batch_size={plan.batch_size},  # {why['batch'].why}",
        f"budget=Budget(epochs={stage.epochs:g}),  # {steps} steps; {why['epochs'].why}",
        f"optimizer=Optimizer(  # {why['optimizer'].why}",
        *(_MUON if plan.muon else []),
        f"    learning_rate={stage.learning_rate:g},  # {why['learning rate'].why}",
        f"    warmup_steps={max(1, round(0.1 * steps))},  # 10% of the steps: change it with the epochs",
        '    schedule="cosine",',
        f"    weight_decay={plan.weight_decay:g},  # {why['weight decay'].why}",
        "),",
        f"trains={trains},  # {why['trains'].why}",
        "context_length=start.context_length,",
        *([f"buckets={plan.buckets!r},  # {why['text length'].why}"] if plan.buckets else []),
        *([f"micro_batches={plan.micro_batches},  # {why['memory'].why}"] if plan.micro_batches > 1 else []),
        *(['cache=str(HERE / "cache"),  # the frozen tower encodes each image once'] if stage.cached else []),
        *([f"workers={plan.workers},  # processes that read images"] if plan.workers else []),
    ]
    body = "".join(f"        {line}\n" for line in lines)
    return f"    {_variable(stage)} = Stage(\n{body}    )"


def _objective(fields: list[str]) -> list[str]:
    """Returns the lines of the contrastive objective with these fields."""
    if not fields:
        return ["objective=Contrastive(),"]
    return ["objective=Contrastive(", *(f"    {line}" for line in fields), "),"]


_MUON = [
    '    name="muon",',
    "    beta2=0.95,",
    '    multipliers=((r".*/layers/.*kernel", 10.0), (r".*", 1.0)),',
]


def _augmentation(plan: Settings, model: ModelFacts, why: dict[str, Choice]) -> list[str]:
    flip = f"flip={plan.flip:g},  # {why['flip'].why}"
    if plan.policy:
        policy = ['    auto_augment="original",'] if plan.auto_augment else []
        opening = f"host_augmentation=HostAugmentation(  # {why['augmentation'].why}"
        return [opening, "    crop_scale=(0.9, 1.0),", *policy, f"    {flip}", "),"]
    outside = ['    outside="white",'] if model.white else []
    return [
        f"augmentation=Augmentation(  # {why['augmentation'].why}",
        *("    scale=0.1,", "    aspect=0.1,", "    translate=0.05,", "    rotate=5.0,"),
        *("    brightness=0.1,", "    contrast=0.1,", f"    {flip}"),
        *outside,
        "),",
    ]
