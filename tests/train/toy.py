"""Chinese-CLIP's recipe on toy towers, for tests of everything around the step. All except the towers is real.

A step compiles in a second, where the reduced towers take ten. `jclip train` takes this file as a configuration.
"""

from dataclasses import replace
from pathlib import Path

from jclip.configs.loading import load_config
from jclip.images.on_host import HostAugmentation
from jclip.losses.contrastive import ContrastiveLoss
from jclip.stages import Budget
from jclip.train.configuration import Run
from jclip.train.planning.reduced import reduce
from tests.toys import TOY


def config() -> Run:
    """Returns both stages on toy towers: first the text tower alone trains, then everything."""
    recipe = load_config("chinese_clip/vit_b_16")
    stages = tuple(_plain(stage) for stage in recipe.stages)
    # With a choice of remat, each start of a run would trace its step again: see `assemble_once`.
    return replace(recipe, name="toy", model=TOY, dtype="float32", remat="dots", stages=stages)


def _plain(stage):
    objective = replace(stage.objective, loss=ContrastiveLoss("dense"), host_augmentation=HostAugmentation())
    optimizer = replace(stage.optimizer, learning_rate=1e-2, warmup_steps=0, schedule="constant", eps=1e-3)
    return replace(stage, objective=objective, optimizer=optimizer)


def toy_run(folder: Path) -> Run:
    """Returns the run of this file at reduced size, two steps a stage; its tokenizer is in `folder`."""
    return larger(
        toy(reduce(config(), folder)), 2**12
    )  # otherwise the largest file of a checkpoint would not contain an array


def larger(run: Run, vocab_size: int) -> Run:
    """Returns the run with a table of `vocab_size` rows of four numbers."""
    return replace(run, model=replace(run.model, text=replace(run.model.text, vocab_size=vocab_size)))


def toy(run: Run, steps: int = 2, **changes) -> Run:
    """Returns the run with `steps` steps a stage and other changes of its stages."""
    changes = {"batch_size": 8, "budget": Budget(steps=steps), **changes}
    return replace(run, stages=tuple(replace(stage, **changes) for stage in run.stages))
