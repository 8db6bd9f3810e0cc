"""The passport, re-run: the same files, the same tensors to the bit, the same model, the same tokens and pixels."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conversion import passport
from conversion.convert import compared, composed
from conversion.importing import Model, Options, import_model
from conversion.source import is_bundle
from jclip.bundle import Bundle, open_bundle
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.tensors import Lazy

_NAMED = 3  # of the parameters that differ


@dataclass(frozen=True)
class Check:
    """One thing that was looked at again: what, whether it holds, and what was seen."""

    what: str
    holds: bool
    seen: str


def verify(folder: Path, sources: Sequence[str], options: Options, report: Callable[[str], None]) -> list[Check]:
    """Holds a bundle against the checkpoints that it was converted from.

    Args:
      folder: the bundle.
      sources: the checkpoints, in the order in which the passport names them.
      options: as at the conversion, where the checkpoint does not say it itself.
      report: is told of the progress.

    Raises:
      JclipError: there is no passport, another number of sources, or one that cannot be read.
    """
    bundle = open_bundle(folder)
    said = passport.read(folder)
    if len(sources) != len(said["sources"]):
        names = " and ".join(str(source["name"]) for source in said["sources"])
        raise JclipError(f"{folder} was converted from {names}: give {len(said['sources'])} source(s), in this order")
    checks: list[Check] = []
    expected: list[tuple[Model | None, Bundle]] = []
    for name, facts in zip(sources, said["sources"], strict=True):
        report(f"reading {name}")
        if is_bundle(Path(name)):
            expected.append((None, open_bundle(name)))
            continue
        model = import_model(name, _at(options, bundle, len(sources)))
        expected.append((model, model.bundle))
        checks += _same_source(model, facts)
    report("comparing every tensor")
    wanted = _whole(expected, sources, said)
    checks.append(_same_tensors(bundle, wanted))
    for (part, _), name in zip(expected, sources, strict=True):
        if part is not None:
            report(f"comparing {name} with PyTorch, layer by layer")
            tensors = bundle.tensors() if len(sources) == 1 else part.bundle.tensors()
            checks += _same_model(part, tensors, Path(name).name)
    checks += [_same_configuration(bundle, wanted), _same_counts(bundle, said)]
    differ = passport.fixtures_differ(bundle, said)
    checks.append(Check("tokens and pictures", not differ, "; ".join(differ) or "all fixtures as in the passport"))
    return checks


def _at(options: Options, bundle: Bundle, count: int) -> Options:
    """Options that bring the checkpoint to the bundle's image size."""
    if count == 1 and isinstance(bundle.config, DualEncoderConfig):
        return Options(options.family, options.tokenizer, options.activation, bundle.config.image.image_size)
    return options


def _same_source(model: Model, said: Mapping[str, Any]) -> Iterator[Check]:
    found = model.facts()
    hashes = {file["name"]: file["sha256"] for file in said.get("files", ())}
    changed = [file["name"] for file in found["files"] if hashes.get(file["name"]) != file["sha256"]]
    seen = f"{len(found['files'])} of {len(hashes)} with the passport's sha256"
    yield Check("files", not changed, f"other than converted: {', '.join(changed)}" if changed else seen)
    read, mapped = found["tensors"]["read"], found["tensors"]["mapped"]
    same = found["tensors"] == said.get("tensors")
    yield Check("keys", same, f"{read} read, {mapped} mapped, {len(found['tensors']['dropped'])} dropped with a reason")


def _whole(parts: list[tuple[Model | None, Bundle]], names: Sequence[str], said: Mapping[str, Any]) -> Bundle:
    if len(parts) == 1:
        return parts[0][1]
    seeds = {int(found[1]) for how in said["new"].values() if (found := re.search(r"seed (\d+)$", str(how)))}
    return composed(parts[0][1], parts[1][1], seeds.pop() if seeds else 0, (names[0], names[1]))[0]


def _same_tensors(bundle: Bundle, wanted: Bundle) -> Check:
    ours, theirs = bundle.tensors(), wanted.tensors()
    different = sorted(path for path in ours.keys() | theirs.keys() if not _equal(ours.get(path), theirs.get(path)))
    seen = f"{len(ours)} of {len(ours)} equal to the bit"
    if different:
        more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
        seen = f"not equal: {', '.join(different[:_NAMED])}{more}"
    return Check("parameters", not different, seen)


def _equal(ours: Lazy | None, theirs: Lazy | None) -> bool:
    if ours is None or theirs is None or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    # As bytes, for -0 is not 0 here.
    return bool(np.array_equal(ours.read().reshape(-1).view(np.uint8), theirs.read().reshape(-1).view(np.uint8)))


def _same_model(model: Model, tensors: Mapping[str, Lazy], name: str) -> Iterator[Check]:
    try:
        comparison = compared(model, dict(tensors))
    except JclipError as error:
        yield Check("the PyTorch model", False, str(error))
        return
    if not comparison["compared"]:
        yield Check("the PyTorch model", False, f"not compared: {comparison['why']}")
        return
    worst = max((layer["relative"], layer["name"]) for layer in comparison["layers"])
    embeddings = ", ".join(f"{tower} {value:.1e}" for tower, value in comparison["embeddings"].items())
    yield Check(f"{name}: embeddings", True, f"largest difference from {comparison['reference']}: {embeddings}")
    yield Check(
        f"{name}: {len(comparison['layers'])} layers", True, f"largest relative difference {worst[0]:.1e} ({worst[1]})"
    )
    if comparison["logits"] is not None:
        yield Check(f"{name}: logits", True, f"largest relative difference {comparison['logits']:.1e}")


def _same_configuration(bundle: Bundle, wanted: Bundle) -> Check:
    """Heads, activations and epsilons are in no tensor; means and deviations of pictures in no fixture."""
    parts = {
        "towers": (bundle.config, wanted.config),
        "preprocessing": (bundle.preprocessing, wanted.preprocessing),
        "context length": (bundle.context_length, wanted.context_length),
    }
    other = [name for name, (ours, theirs) in parts.items() if ours != theirs]
    return Check("configuration", not other, f"other {', '.join(other)}" if other else "as the checkpoint's")


def _same_counts(bundle: Bundle, said: Mapping[str, Any]) -> Check:
    counts = passport.parameter_counts(bundle)
    return Check(
        "counts", counts == said["parameters"], ", ".join(f"{name} {count:,}" for name, count in counts.items())
    )
