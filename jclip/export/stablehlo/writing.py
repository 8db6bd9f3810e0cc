"""Writes the files of a StableHLO export.

    image.stablehlo, text.stablehlo       functions of (weights, inputs), serialised by `jax.export`
    image.safetensors, text.safetensors   their weights: {name: float32 array}
    examples.safetensors                  inputs, and the features that jclip computes for them
    tokenizer.json, preprocessing.json    see `jclip.export.beside`
    run.py, README.md                     loader without jclip, and its description

Axes: b batch, h height, w width, c colours, l tokens, d features.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jclip import rules
from jclip.bundle import Bundle
from jclip.encoding import image_encoder, text_encoder
from jclip.errors import JclipError
from jclip.export.beside import write_beside
from jclip.export.formats import Say
from jclip.export.stablehlo import run
from jclip.export.stablehlo.readme import readme
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.io.safetensors import write_safetensors
from jclip.io.tensors import Lazy
from jclip.models.build import variables_of
from jclip.models.compute import Compute
from jclip.tokenizers.text import pad

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5
"""Maximum difference of a feature's element from jclip's; 1e-7 is usual, and ill-conditioned weights give more."""
SHORTEST = 2
"""Minimum number of tokens of a text: the tokens of its begin and end."""
SENTENCES = ("", "a", "一只狗在雪地里跑", "a dog runs in the snow, 狗在雪地里跑")

_IMAGES = 3
_PORTABLE = Compute(attention="xla")  # cuDNN's kernel would tie a function to NVIDIA's GPUs

Weights = dict[str, np.ndarray]


def write_files(model: Model, folder: Path, say: Say) -> dict[str, Any]:
    """Writes a model into an empty folder, and returns the format's entries of the record.

    Raises JclipError if a tower cannot be exported for any batch size, or the written functions give other features
    than the model.
    """
    bundle = model.bundle
    towers = list(map(str, bundle.config.towers))
    for tower in towers:
        say(f"exporting the {tower} tower")
        weights = weights_of(bundle, tower)
        write_safetensors(folder / f"{tower}{run.WEIGHTS}", weights)
        (folder / f"{tower}{run.FUNCTION}").write_bytes(serialised(bundle, tower, weights))
    say("writing the tokenizer and the preprocessing")
    write_beside(bundle, folder)
    shutil.copyfile(run.__file__, folder / "run.py")
    examples = _examples(model, towers)
    write_safetensors(folder / run.EXAMPLES, examples)
    difference = {}
    for tower in towers:
        say(f"comparing the {tower} tower with the model")
        difference[tower] = _difference(folder, tower, examples)
    own: dict[str, Any] = {
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "towers": towers,
        "tokens": [SHORTEST, bundle.config.text.longest],
        "example_texts": list(SENTENCES),
        "largest_difference": difference,
    }
    (folder / "README.md").write_text(readme(model, own), encoding="utf-8")
    return own


def weights_of(bundle: Bundle, tower: str) -> Weights:
    """Returns a tower's variables, float32, by their paths: "params/image/layers/attention/query/kernel"."""
    params, stats = ({name: tree[name] for name in (tower,) if name in tree} for tree in (bundle.params, bundle.stats))
    leaves = rules.paths_of(variables_of(params, stats))
    return {
        path: np.asarray(leaf.read() if isinstance(leaf, Lazy) else leaf, np.float32) for path, leaf in leaves.items()
    }


def serialised(bundle: Bundle, tower: str, weights: Weights) -> bytes:
    """Returns a tower as an exported function of weights and inputs, with features (b, d), L2-normalised.

    Inputs are uint8 images (b, h, w, 3), or token ids int32 (b, l). Raises JclipError if the tower computes with the
    batch's size in Python.
    """
    inputs, encode = _inputs(bundle, tower), text_encoder(bundle.config, _PORTABLE)
    if tower == "image":
        encode = image_encoder(bundle.config, _preprocessing(bundle), _PORTABLE)

    def features(weights: dict[str, jax.Array], inputs: jax.Array) -> Any:
        return encode(rules.tree_from_paths(weights), inputs)

    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
    try:
        return bytes(export.export(jax.jit(features), platforms=PLATFORMS)(shapes, inputs).serialize())
    except (jax.errors.InconclusiveDimensionOperation, TypeError) as error:
        kind, why = type(bundle.config.towers[tower]).__name__, str(error).partition("\n")[0]
        raise JclipError(
            f"{tower} tower: {kind} cannot be exported for every batch size and text length ({why}): do not compute "
            "or compare with them in Python"
        ) from None


def _inputs(bundle: Bundle, tower: str) -> jax.ShapeDtypeStruct:
    """Returns the shape of a tower's inputs, with symbols for the batch size and the text's length."""
    if tower == "image":
        size = _preprocessing(bundle).size
        return jax.ShapeDtypeStruct(export.symbolic_shape(f"b, {size}, {size}, 3"), jnp.uint8)
    limits = (f"l >= {SHORTEST}", f"l <= {bundle.config.text.longest}")
    return jax.ShapeDtypeStruct(export.symbolic_shape("b, l", constraints=limits), jnp.int32)


def _preprocessing(bundle: Bundle) -> Preprocessing:
    assert bundle.preprocessing is not None  # because the model has an image tower
    return bundle.preprocessing


def _examples(model: Model, towers: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns inputs of each tower and the model's features: {"text/inputs": …, "text/features": …}."""
    bundle, found = model.bundle, {}
    if "image" in towers:
        size = _preprocessing(bundle).size
        found["image/inputs"] = np.random.default_rng(0).integers(0, 256, (_IMAGES, size, size, 3), np.uint8)
        found["image/features"] = model.encode_image(found["image/inputs"])
    if "text" in towers:
        encoded = bundle.tokenizer.encode(SENTENCES, bundle.context_length)
        found["text/inputs"] = pad(encoded, max(map(len, encoded)), bundle.tokenizer.pad_id)
        found["text/features"] = model.encode_text(SENTENCES)
    return found


def _difference(folder: Path, tower: str, examples: dict[str, np.ndarray]) -> float:
    """Returns the largest difference of the written function from the model's features, for two batch sizes.

    Raises JclipError if it exceeds `TOLERANCE`.
    """
    function = run.Tower(folder, tower)
    inputs, expected = examples[f"{tower}/inputs"], examples[f"{tower}/features"]
    found = np.concatenate([function(inputs), function(inputs[:1])])
    difference = float(np.abs(found - np.concatenate([expected, expected[:1]])).max())
    if not difference <= TOLERANCE:
        raise JclipError(
            f"{tower} tower: the exported function differs from the model by {difference:.1e}, more than "
            f"{TOLERANCE:.0e}: report this, with the bundle's config.json"
        )
    return difference
