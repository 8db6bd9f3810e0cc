"""README.md of a StableHLO export."""

from typing import Any

from jclip.inference import Model
from jclip.plain import shown

_TEXT = """\
# {name}

A model exported by jclip. `export.json` describes it; its identity is {identity}.

| file | contents |
|---|---|
{files}
| `tokenizer.json`, `tokenizer/` | tokenizer, for the library `tokenizers`, and as jclip reads it |
| `examples.safetensors` | inputs, and the features that jclip computed for them |
| `run.py` | loader, which needs jax, numpy and safetensors, but not jclip |

`python run.py` computes the examples on this machine and prints the differences. From Python, with this folder in
`sys.path`:

```python
from run import {names}

folder = "this/folder"
model = load(folder)
{calls}
```

{inputs}

Features are float32 (n, {width}), L2-normalised. {scale}A new batch size or text length is compiled once.

The functions were serialised by jax {jax} for {platforms}. jax guarantees that they run with versions that are up to 6
months newer, or 3 weeks older. Keep the bundle, and export it again for later versions. On accelerators, jax's default
precision of float32 products applies, as in jclip: bfloat16 on TPUs, TF32 on some GPUs.
"""
_ROWS = {
    "image": "| `image.stablehlo`, `image.safetensors` | function of the image tower, and its weights |\n"
    "| `preprocessing.json` | steps from an image file to the image tower's input |",
    "text": "| `text.stablehlo`, `text.safetensors` | function of the text tower, and its weights |",
}
_CALLS = {
    "image": 'images_nd = model["image"](pixels_of(folder, ["cat.jpg"]))  # needs Pillow',
    "text": 'texts_nd = model["text"](ids_of(folder, ["a cat", "一只猫"]))  # needs tokenizers',
}
_NAMES = {"image": "pixels_of", "text": "ids_of"}
_INPUTS = {
    "image": "The image tower reads RGB images, uint8 (n, {size}, {size}, 3), and normalises them itself.",
    "text": "The text tower reads token ids, int32 (n, l) with l from {shortest} to {longest}, begin and end tokens "
    "included. Shorter texts of a batch are padded with id {pad}.",
}


def readme(model: Model, facts: dict[str, Any]) -> str:
    """Returns the text for a model; `facts` are the format's entries of the record."""
    bundle, towers = model.bundle, facts["towers"]
    shortest, longest = facts["tokens"]
    numbers = {
        "size": bundle.preprocessing and bundle.preprocessing.size,
        "shortest": shortest,
        "longest": longest,
        "pad": bundle.tokenizer.pad_id,
    }
    scale = f"The logits of images and texts are {model.similarity_scale:.6g} times their products. "
    return _TEXT.format(
        name=shown(model.name),
        identity=model.identity,
        files="\n".join(_ROWS[tower] for tower in towers),
        names=", ".join(sorted(["load", *(_NAMES[tower] for tower in towers)])),
        calls="\n".join(_CALLS[tower] for tower in towers),
        inputs="\n\n".join(_INPUTS[tower].format(**numbers) for tower in towers),
        width=model.embed_dim,
        scale=scale if "image" in towers else "",
        jax=facts["jax"],
        platforms=", ".join(facts["platforms"]),
    )
