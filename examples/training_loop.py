"""Trains a small Chinese-CLIP with a training loop of your own.

jclip data example my-pictures --drawn          # images of shapes, and pictures.csv
python examples/training_loop.py my-pictures/pictures.csv bundles/own
"""

import csv
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from PIL import Image

import jclip
from jclip import evaluate, losses, models, tokenizers, train

SIZE, LENGTH, BATCH = 32, 16, 64  # pixels, tokens, pairs


def main(table: Path, out: Path, steps: int = 300) -> None:
    """Trains on the images and captions of a table, and writes a bundle."""
    rows = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))[1:]
    captions = [caption for _, caption in rows]
    pictures = [Image.open(table.parent / name).convert("RGB") for name, _ in rows]
    tokenizer = tokenizers.wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(captions)))])
    config = models.get_config("chinese-clip-vit-b-16").reduced(SIZE, tokenizer.vocab_size, LENGTH)
    preprocessing, model = jclip.Preprocessing(size=SIZE), models.build_model(config)

    pixels = np.stack([picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for picture in pictures])
    images = (pixels / np.float32(255) - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    ids = tokenizer(captions, LENGTH)
    meanings = np.unique(captions, return_inverse=True)[1]  # equal captions are not each other's negatives

    def loss(params, stats, constants, batch, key):
        image = model.apply({"params": params}, batch["image"], method="encode_image")
        text = model.apply({"params": params}, batch["text"], method="encode_text")
        value, metrics = losses.contrastive_loss(image, text, params["logit_scale"], text_ids_b=batch["meaning"])
        return value, (metrics, stats)

    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps))
    params = models.init_variables(config, jax.random.key(0))["params"]
    state = train.TrainState(trainable=params, frozen={}, stats={}, slots=optimizer.init(params))
    step = jax.jit(train.make_step(loss, optimizer), donate_argnums=0)
    for number in range(steps):
        some = np.random.default_rng(number).choice(len(rows), BATCH)
        batch = {"image": images[some], "text": ids[some], "meaning": meanings[some]}
        state, metrics = step(state, {}, batch, jax.random.key(number))
        if number % 50 == 49 or number == steps - 1:
            print(f"step {number + 1}: loss {metrics['loss']:.3f}")
    jclip.save(jclip.Bundle(config, jax.device_get(state.trainable), tokenizer, preprocessing, LENGTH), out)
    own = jclip.load(out)
    found = evaluate.recall(own.encode_image(pictures), own.encode_text(captions), meanings, meanings)
    print(f"text to image, on the training images: R@1 {found['t2i_r1']:.0%} (chance {found['t2i_chance_r1']:.0%})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
