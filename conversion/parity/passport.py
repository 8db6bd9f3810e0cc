"""passport.json: origin of a bundle's weights, use of every tensor, and fixtures of tokens and pixels for `verify`."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jclip.bundle import Bundle
from jclip.conversion.parity.comparison import Differences
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing, normalise, to_array
from jclip.io.json_files import read_object
from jclip.plain import as_json

FILE, _FORMAT = "passport.json", 2
_OF_A_FILE = ("name", "sha256")
_COLOURS_WITHIN = 1e-5
"""Tolerance for normalised black and white: above float32 rounding, below the effect of another mean or deviation."""
DTYPES = "as in the checkpoint, exactly; float32 in use"
_TEXTS = (
    "",
    "a photo of a cat",
    "一只可爱的橘猫，坐在窗台上。",
    "“引号”与‘单引号’ ＦＵＬＬ １２３",
    "Äpfel, naïve café, İstanbul, ΣΊΣΥΦΟΣ",
    "日本語とカタカナ 한국어 русский текст العربية ไทย हिन्दी",
    "🐕‍🦺 👩🏽‍🚀 emoji\ttab\u00a0nbsp\u200bzwsp",
    "long " * 120,
)


def make(
    bundle: Bundle,
    sources: list[dict[str, Any]],
    *,
    changed: Mapping[str, str] | None = None,
    new: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Returns a bundle's passport, JSON-ready.

    Args:
      bundle: the model as it was written.
      sources: facts of each source, with its role and its comparison.
      changed: origin of each parameter that differs from the checkpoint's, by path.
      new: initialisation of each parameter that no source has, by path.
      seed: seed of the new parameters.
    """
    return {
        "format": _FORMAT,
        "jclip": version("jclip"),
        "sources": sources,
        "parameters": parameter_counts(bundle),
        "dtypes": DTYPES,
        "changed": dict(changed or {}),
        "new": dict(new or {}),
        "seed": seed,
        "tokenizer": {"kind": bundle.tokenizer.kind, "vocab_size": bundle.tokenizer.vocab_size, **_texts(bundle)},
        "preprocessing": _pictures(bundle.preprocessing),
    }


def write(passport: Mapping[str, Any], folder: Path) -> None:
    """Writes a passport into a bundle."""
    text = as_json(passport, indent=1, allow_nan=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Reads a bundle's passport. Raises JclipError if it is missing, damaged or of another format."""
    if not (folder / FILE).is_file():
        raise JclipError(f"{folder} has no {FILE}: it was trained, not converted, so there is nothing to verify")
    passport = read_object(folder / FILE)
    if passport.get("format") != _FORMAT or not _is_complete(passport):
        raise JclipError(f"{folder / FILE} is damaged or of another version: convert the checkpoint again")
    return passport


def _is_complete(passport: Mapping[str, Any]) -> bool:
    """Returns True if a passport has every field that a verification needs."""
    try:
        sources, texts, seed = passport["sources"], passport["tokenizer"]["fixtures"], passport["seed"]
        pictures = passport["preprocessing"]
        named = all(isinstance(source["name"], str) and "options" in source for source in sources)
        roles = [source["role"] for source in sources] in (["all"], ["image", "text"])
        hashed = all(isinstance(file[key], str) for source in sources for file in source["files"] for key in _OF_A_FILE)
        read = all(isinstance(text["text"], str) for text in texts)
        drawn = pictures is None or isinstance(pictures["pixels"], dict)
        coloured = pictures is None or np.asarray(pictures["normalised"], float).shape == (2, 3)
    except (KeyError, TypeError, AttributeError, ValueError):
        return False
    counted, seeded = isinstance(passport.get("parameters"), dict), len(sources) == 1 or isinstance(seed, int)
    return all((named, roles, hashed, read, drawn, coloured, counted, seeded))


def compared(comparison: Differences) -> dict[str, Any]:
    """Returns a comparison, JSON-ready."""
    return {
        "compared": True,
        "reference": comparison.reference,
        "embeddings": comparison.embeddings,
        "logits": comparison.logits,
        "layers": [{"name": name, "absolute": a, "relative": r} for name, a, r in comparison.layers],
    }


def not_compared(why: str) -> dict[str, Any]:
    """Returns the entry for a comparison that could not be made."""
    return {"compared": False, "why": why}


def parameter_counts(bundle: Bundle) -> dict[str, int]:
    """Returns the number of parameters of each tower and of the model, without running statistics."""
    counts: dict[str, int] = {}
    for path, tensor in bundle.tensors().items():
        if not path.startswith("batch_stats/"):
            tower = path.split("/")[0]
            counts[tower] = counts.get(tower, 0) + int(np.prod(tensor.shape, dtype=np.int64))
    return {**counts, "all": sum(counts.values())}


def fixtures_differ(bundle: Bundle, passport: Mapping[str, Any]) -> list[str]:
    """Returns a line for each text or image whose tokens or pixels differ from the passport."""
    said, found = passport["tokenizer"]["fixtures"], _texts(bundle)["fixtures"]
    lines = [f"tokens of {a['text'][:30]!r}" for a, b in zip(said, found, strict=False) if a != b]
    if len(said) != len(found):
        lines.append("number of texts")
    asked, pictures = passport["preprocessing"], _pictures(bundle.preprocessing)
    if asked is None or pictures is None:
        return lines if asked == pictures else [*lines, "images, which only the bundle or only the passport has"]
    names = dict.fromkeys([*asked["pixels"], *pictures["pixels"]])
    lines += [f"image {name!r}" for name in names if asked["pixels"].get(name) != pictures["pixels"].get(name)]
    if not np.allclose(asked["normalised"], pictures["normalised"], rtol=0, atol=_COLOURS_WITHIN):
        lines.append("normalised black and white")
    return lines


def _texts(bundle: Bundle) -> dict[str, Any]:
    encoded = bundle.tokenizer.encode(_TEXTS, bundle.context_length)
    return {"fixtures": [{"text": text, "ids": ids} for text, ids in zip(_TEXTS, encoded, strict=True)]}


def _pictures(preprocessing: Preprocessing | None) -> dict[str, Any] | None:
    """Returns fixtures of preprocessed images; None for a text encoder.

    "pixels" holds the sha256 of the uint8 pixels of each image. Normalised pixels are not hashed, because they differ
    in the last bit between machines. "normalised" holds normalised black and white by channel, which is enough because
    normalisation is linear.
    """
    if preprocessing is None:
        return None
    pixels = {}
    for width, height, mode in ((67, 45, "RGB"), (45, 300, "RGB"), (64, 64, "RGBA"), (50, 31, "P"), (9, 9, "L")):
        picture = to_array(preprocessing, _drawn(width, height).convert(mode))
        pixels[f"waves {width}x{height} {mode}"] = hashlib.sha256(picture.tobytes()).hexdigest()
    black_and_white = jnp.asarray([[[[0, 0, 0], [255, 255, 255]]]], jnp.uint8)
    normalised = np.asarray(normalise(preprocessing, black_and_white))[0, 0]
    return {"pixels": pixels, "normalised": [[round(float(value), 7) for value in colour] for colour in normalised]}


def _drawn(width: int, height: int) -> Image.Image:
    """Returns an RGBA test image computed with integers, so that its pixels are the same on every machine."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * x * 3 + y * 7) % 256, (x * 5 + y * y * 2) % 256, (x * y * 11) % 256, (x * 13 + y * 3) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8), "RGBA")
