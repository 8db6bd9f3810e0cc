"""Ablation of the demo's English CLIP on the tuning artists: each variant changes one choice.

    jclip demo --quick                                  fetches the data, once
    python benchmarks/demo_ablation.py                  a quarter of an hour on 2 cores

Trains on Twemoji and scores OpenMoji; the test artist is not read. Text to image and image to text, per cent.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from jclip.configs.demo import common, english
from jclip.configs.demo.quickstart import examination
from jclip.demo.emoji.protocol import TUNING_ARTISTS
from jclip.demo.scores import EVALUATION
from jclip.optimizer import Optimizer
from jclip.train import Budget, Contrastive, Run
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train

COLUMNS = ("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10")
ADAMW = Optimizer(learning_rate=1e-3, warmup_steps=70)
SMALL_PATCHES = {"patch_size": 8, "width": 128, "layers": 3, "heads": 2}


def variants(run: Run) -> dict[str, Run]:
    """Returns {name: run}: the run as configured, and variants that each change one choice."""
    (stage,) = run.stages
    small = replace(run.model, image=replace(common.IMAGE, **SMALL_PATCHES))
    return {
        "as configured": run,
        "450 steps": replace(run, stages=(replace(stage, budget=Budget(steps=450)),)),
        "batches of 128": replace(run, stages=(replace(stage, batch_size=128),)),
        "AdamW for Muon": replace(run, stages=(replace(stage, optimizer=ADAMW),)),
        "no augmentation": replace(run, stages=(replace(stage, objective=Contrastive()),)),
        "margins kept": replace(run, preprocessing=replace(run.preprocessing, trim=False)),
        "patches of 8, width 128, 3 layers": replace(run, model=small),
    }


def main() -> None:
    """Trains every variant and prints a Markdown table."""
    place = common.Place(artists=TUNING_ARTISTS)
    questions = examination(place, validate=True)
    print(f"| English CLIP | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, run in variants(english.build(place)).items():
            workdir = Path(folder) / name.replace(" ", "-")
            train(run, workdir, evaluators=questions.evaluators(run, ("en",)))
            last = [record for record in read_journal(workdir / "metrics.jsonl") if record["kind"] == "evaluation"][-1]
            figures = [f"{100 * last[f'{EVALUATION}/en/known/{column}']:.1f}" for column in COLUMNS]
            print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
