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
| `examples.safetensors` | inputs, and the features that jclip computed for them |
| `run.py` | loader, which needs jax, numpy and safetensors, but not jclip |

`python run.py` computes the examples on this machine and prints the differences. From Python:

```python
from run import load

model = load("this/folder")
{calls}
```

Features are float32 (n, {width}), L2-normalised. {scale}Each new batch size or text length is compiled once.

{inputs}

The functions were serialised by jax {jax} for {platforms}. jax guarantees that they run with versions that are up to 6
months newer, or 3 weeks older. Keep the bundle, and export it again for later versions. On accelerators, jax's default
precision of float32 products applies: bfloat16 on TPUs, TF32 on some GPUs.
"""
_ROWS = "| `{0}.stablehlo`, `{0}.safetensors` | function of the {0} tower, and its weights |"
_CALLS = {
    "image": 'images_nd = model["image"](images)  # uint8 (n, {size}, {size}, 3)',
    "text": 'texts_nd = model["text"](ids)  # int32 (n, l)',
}
_INPUTS = {
    "image": "Images are RGB, 0 to 255, resized to {size} x {size} pixels; the function normalises them.",
    "text": "Ids are those of the tokenizer, begin and end tokens included, {shortest} to {longest} to a text. Shorter "
    "texts of a batch are padded with id {pad}.",
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
        files="\n".join(_ROWS.format(tower) for tower in towers),
        calls="\n".join(_CALLS[tower].format(**numbers) for tower in towers),
        inputs="\n\n".join(_INPUTS[tower].format(**numbers) for tower in towers),
        width=model.embed_dim,
        scale=scale if "image" in towers else "",
        jax=facts["jax"],
        platforms=", ".join(facts["platforms"]),
    )
