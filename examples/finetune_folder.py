"""Fine-tunes a bundle on a folder of images and a CSV, with a run that is configured here.

`jclip finetune` does the same and chooses the settings for you.

    python examples/finetune_folder.py BUNDLE my-pictures/pictures.csv runs/mine
"""

import argparse
import csv
from pathlib import Path

import jclip
from jclip import data, evaluate, train


def main() -> None:
    """Writes two data folders, trains, and compares the model before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the model to start from")
    parser.add_argument("table", type=Path, help="a CSV with a header and two columns: path of the image, and caption")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    asked = parser.parse_args()

    rows = list(csv.reader(asked.table.read_text(encoding="utf-8-sig").splitlines()))[1:]
    pairs = [data.StoredPair((asked.table.parent / name).read_bytes(), (caption,)) for name, caption in rows]
    held_out = pairs[::10]
    data.write_pairs(asked.out / "data", [pair for pair in pairs if pair not in held_out])
    data.write_pairs(asked.out / "valid", held_out, split="valid")

    before = jclip.load(asked.bundle)
    stage = train.Stage(
        name="tune",
        objective=train.Contrastive(),
        data=(data.PairFolder(str(asked.out / "data")),),
        batch_size=asked.batch_size,
        budget=train.Budget(epochs=asked.epochs),
        optimizer=train.Optimizer(learning_rate=5e-4, warmup_steps=10),
        trains=((r"image/.*", False), (r".*", True)),  # the image tower is frozen
        context_length=before.bundle.context_length,
    )
    run = train.Run(
        name="mine",
        model=before.bundle.config,
        tokenizer=str(asked.bundle / "tokenizer"),
        preprocessing=before.bundle.preprocessing,
        stages=(stage,),
        starts_from=((r".*", str(asked.bundle)),),
        evaluations=(train.Retrieval("valid", str(asked.out / "valid"), split="valid"),),
        evaluate_every=50,
        best="valid/mean_recall",
    )
    outcome = train.run(run, asked.out / "run")
    for name, model in (("before", before), ("after", jclip.load(outcome.best))):
        found = evaluate.retrieval(model, asked.out / "valid", split="valid", resamples=0)
        print(f"{name}: mean recall {found.results.tests[0].figures['mean_recall']:.1%}")


if __name__ == "__main__":
    main()
