"""passport.json: where a bundle's weights come from, what became of every tensor, and what proves it unchanged."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conversion.comparison import Comparison
from conversion.source import read_object
from jclip.bundle import Bundle
from jclip.data.images import Preprocessing, to_array
from jclip.errors import JclipError

FILE, _FORMAT = "passport.json", 1
_OF_A_FILE = ("name", "sha256")
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
    changed: Mapping[str, str],
    new: Mapping[str, str],
) -> dict[str, Any]:
    """A bundle's passport, JSON-ready.

    Args:
      bundle: the model.
      sources: the facts of each checkpoint, with its role and its comparison.
      changed: parameters that were made from the checkpoint's by more than another name: {path: how}.
      new: parameters that no checkpoint holds: {path: initialiser and seed}.
    """
    return {
        "format": _FORMAT,
        "jclip": version("jclip"),
        "sources": sources,
        "parameters": parameter_counts(bundle),
        "dtypes": DTYPES,
        "changed": dict(changed),
        "new": dict(new),
        "tokenizer": {"kind": bundle.tokenizer.kind, "vocab_size": bundle.tokenizer.vocab_size, **_texts(bundle)},
        "preprocessing": _pictures(bundle.preprocessing),
    }


def write(passport: Mapping[str, Any], folder: Path) -> None:
    """Writes it into a bundle."""
    text = json.dumps(passport, indent=1, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The passport of a bundle.

    Raises:
      JclipError: it has none, or one that is damaged or of another format.
    """
    if not (folder / FILE).is_file():
        raise JclipError(f"{folder} has no {FILE}: it was trained, not converted; there is nothing to hold it against")
    passport = read_object(folder / FILE)
    if passport.get("format") != _FORMAT or not _whole(passport):
        raise JclipError(f"{folder / FILE} is damaged or of another version: convert again")
    return passport


def _whole(passport: Mapping[str, Any]) -> bool:
    """Whether all that is asked of a passport again is there."""
    try:
        sources, texts = passport["sources"], passport["tokenizer"]["fixtures"]
        named = all(isinstance(source["name"], str) for source in sources)
        hashed = all(isinstance(file[key], str) for s in sources for file in s.get("files", ()) for key in _OF_A_FILE)
        read = all(isinstance(text["text"], str) for text in texts)
        maps = [passport[name] for name in ("parameters", "preprocessing", "new")]
    except (KeyError, TypeError, AttributeError):
        return False
    return bool(sources) and named and hashed and read and all(isinstance(each, dict) for each in maps)


def compared(comparison: Comparison) -> dict[str, Any]:
    """A comparison, JSON-ready."""
    return {
        "compared": True,
        "reference": comparison.reference,
        "embeddings": comparison.embeddings,
        "logits": comparison.logits,
        "layers": [{"name": name, "absolute": a, "relative": r} for name, a, r in comparison.layers],
    }


def not_compared(why: str) -> dict[str, Any]:
    """That there was no comparison, and why."""
    return {"compared": False, "why": why}


def parameter_counts(bundle: Bundle) -> dict[str, int]:
    """Parameters of each tower, and all; running statistics are none."""
    counts: dict[str, int] = {}
    for path, tensor in bundle.tensors().items():
        if not path.startswith("batch_stats/"):
            tower = path.split("/")[0]
            counts[tower] = counts.get(tower, 0) + int(np.prod(tensor.shape, dtype=np.int64))
    return {**counts, "all": sum(counts.values())}


def fixtures_differ(bundle: Bundle, passport: Mapping[str, Any]) -> list[str]:
    """What a bundle tokenizes or preprocesses otherwise than its passport says, one line each."""
    said, found = passport["tokenizer"]["fixtures"], _texts(bundle)["fixtures"]
    lines = [f"tokens of {a['text'][:30]!r}" for a, b in zip(said, found, strict=False) if a != b]
    pictures = _pictures(bundle.preprocessing)
    lines += [f"picture {name!r}" for name, value in passport["preprocessing"].items() if pictures.get(name) != value]
    if len(said) != len(found) or pictures.keys() != passport["preprocessing"].keys():
        lines.append("another number of fixtures")
    return lines


def _texts(bundle: Bundle) -> dict[str, Any]:
    encoded = bundle.tokenizer.encode(_TEXTS, bundle.context_length)
    return {"fixtures": [{"text": text, "ids": ids} for text, ids in zip(_TEXTS, encoded, strict=True)]}


def _pictures(preprocessing: Preprocessing | None) -> dict[str, str]:
    """{picture: sha256 of its pixels after preprocessing}, of pictures that are drawn here."""
    if preprocessing is None:
        return {}
    found = {}
    for width, height, mode in ((67, 45, "RGB"), (45, 300, "RGB"), (64, 64, "RGBA"), (50, 31, "P"), (9, 9, "L")):
        pixels = to_array(preprocessing, _drawn(width, height).convert(mode))
        found[f"waves {width}x{height} {mode}"] = hashlib.sha256(pixels.tobytes()).hexdigest()
    return found


def _drawn(width: int, height: int) -> Image.Image:
    """Waves in integer arithmetic: the same pixels on every machine."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * x * 3 + y * 7) % 256, (x * 5 + y * y * 2) % 256, (x * y * 11) % 256, (x * 13 + y * 3) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8), "RGBA")
