"""Verifies a bundle against its sources: files, tensors, PyTorch model, configuration, tokens and images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jclip.bundle import Bundle, is_bundle, open_bundle
from jclip.config import from_json
from jclip.conversion.composing import Part, Role, as_written, composed, facts_of, open_part
from jclip.conversion.converting import Progress, compared
from jclip.conversion.importing import CheckpointOptions, ImportedModel
from jclip.conversion.parity import passport
from jclip.errors import JclipError
from jclip.io.tensors import Lazy

_NAMED = 3  # parameters in a message
_PYTORCH = "the PyTorch model"


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
      what: name of the check.
      holds: True if it passed; None if it was impossible, such as without PyTorch.
      seen: details, such as the differences.
    """

    what: str
    holds: bool | None
    seen: str


def verify(
    folder: Path, sources: Sequence[str], tokenizer: Path | None = None, report: Progress = print
) -> list[Check]:
    """Verifies a bundle against its sources, with its passport's options. Returns all checks, including failed ones.

    Raises JclipError if the bundle has no passport, the number of sources differs from the passport's, or a source
    cannot be read.

    Args:
      folder: folder of the bundle.
      sources: checkpoints or bundles that it was made from, in the passport's order.
      tokenizer: new path of the vocabulary that was given at the conversion; None if it has not moved.
      report: receives the name of each step.
    """
    bundle = open_bundle(folder)
    said = passport.read(folder)
    if len(sources) != len(said["sources"]):
        names = " and ".join(str(source["name"]) for source in said["sources"])
        raise JclipError(f"{folder} was converted from {names}: give {len(said['sources'])} source(s), in this order")
    checks: list[Check] = []
    parts: dict[Role, Part] = {}
    for name, facts in zip(sources, said["sources"], strict=True):
        report(f"reading {name}")
        role: Role = facts["role"]
        options = from_json(CheckpointOptions, facts["options"], f"{folder / passport.FILE}: options")
        parts[role] = open_part(name, role, _with_tokenizer(options, tokenizer, name, role))
        checks += _same_source(facts_of(parts[role], name, role), facts, _label(name, sources))
    report("comparing every tensor")
    wanted, copied = _expected(parts, sources, said)
    checks.append(_same_tensors(bundle, wanted))
    for name, (role, part) in zip(sources, parts.items(), strict=True):
        if isinstance(part, ImportedModel):
            report(f"comparing {name} with PyTorch, layer by layer")
            checks += _same_model(part, copied[role], bundle, wanted, _label(name, sources))
    checks += [_same_configuration(bundle, wanted), _same_counts(bundle, said)]
    differ = passport.fixtures_differ(bundle, said)
    checks.append(Check("tokens and images", not differ, "; ".join(differ) or "equal to the passport's fixtures"))
    return checks


def _label(name: str, sources: Sequence[str]) -> str:
    """Returns a prefix for the names of a source's checks; empty for a single source."""
    return f"{Path(name).name}: " if len(sources) > 1 else ""


def _with_tokenizer(options: CheckpointOptions, given: Path | None, name: str, role: Role) -> CheckpointOptions:
    if given is None or role == "image":
        return options
    if is_bundle(Path(name)):
        raise JclipError(f"{name} is a bundle with its own tokenizer: omit --tokenizer")
    return replace(options, tokenizer=given)


def _expected(
    parts: Mapping[Role, Part], names: Sequence[str], said: Mapping[str, Any]
) -> tuple[Part, Mapping[Role, Sequence[str]]]:
    """Returns the expected model, and the paths of the parameters that come from each source."""
    if "all" in parts:
        return parts["all"], {"all": list(parts["all"].tensors())}
    start = composed(parts["image"], parts["text"], said["seed"], (names[0], names[1]))
    return start.bundle, start.copied


def _same_source(found: Mapping[str, Any], said: Mapping[str, Any], label: str) -> Iterator[Check]:
    ours = {file["name"]: file["sha256"] for file in found["files"]}
    theirs = {file["name"]: file["sha256"] for file in said["files"]}
    wrong = {
        "changed since the conversion": [name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]],
        "missing": theirs.keys() - ours.keys(),
        "new since the conversion": ours.keys() - theirs.keys(),
    }
    seen = "; ".join(f"{how}: {', '.join(sorted(names))}" for how, names in wrong.items() if names)
    yield Check(f"{label}files", not seen, seen or f"{len(ours)} with the passport's sha256: {', '.join(sorted(ours))}")
    if "tensors" in found:
        read, mapped, dropped = (found["tensors"][name] for name in ("read", "mapped", "dropped"))
        same = _without_reasons(found["tensors"]) == _without_reasons(said.get("tensors"))
        yield Check(f"{label}keys", same, f"{read} read, {mapped} mapped, {len(dropped)} dropped with a reason")


def _without_reasons(tensors: Any) -> Any:
    # Another version of jclip may word them differently.
    try:
        return {**tensors, "dropped": [drop["key"] for drop in tensors["dropped"]]}
    except (KeyError, TypeError):
        return None


def _same_tensors(bundle: Bundle, wanted: Part) -> Check:
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
    # As bytes, because -0 == 0.
    return bool(np.array_equal(ours.read().reshape(-1).view(np.uint8), theirs.read().reshape(-1).view(np.uint8)))


def _same_model(
    model: ImportedModel, copied: Sequence[str], bundle: Bundle, wanted: Part, label: str
) -> Iterator[Check]:
    """Compares the bundle's own tensors with the PyTorch model."""
    if _shapes(bundle) != _shapes(wanted):
        yield Check(f"{label}{_PYTORCH}", None, "not compared: the parameters have another model's shapes")
        return
    try:
        comparison = compared(model, as_written(model, copied, bundle.tensors()))
    except JclipError as error:
        yield Check(f"{label}{_PYTORCH}", False, str(error))
        return
    if not comparison["compared"]:
        yield Check(f"{label}{_PYTORCH}", None, f"not compared: {comparison['why']}")
        return
    worst = max((layer["relative"], layer["name"]) for layer in comparison["layers"])
    embeddings = ", ".join(f"{tower} {value:.1e}" for tower, value in comparison["embeddings"].items())
    yield Check(f"{label}embeddings", True, f"largest difference from {comparison['reference']}: {embeddings}")
    layers = f"{len(comparison['layers'])} layers"
    yield Check(f"{label}{layers}", True, f"largest relative difference {worst[0]:.1e} ({worst[1]})")
    if comparison["logits"] is not None:
        yield Check(f"{label}logits", True, f"largest relative difference {comparison['logits']:.1e}")


def _shapes(part: Part) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in part.tensors().items()}


def _same_configuration(bundle: Bundle, wanted: Part) -> Check:
    """Compares settings that tensors do not contain: heads, activations, epsilons, preprocessing."""
    parts = {
        "towers": (bundle.config, wanted.config),
        "preprocessing": (bundle.preprocessing, wanted.preprocessing),
        "context length": (bundle.context_length, wanted.context_length),
    }
    other = [name for name, (ours, theirs) in parts.items() if ours != theirs]
    return Check("configuration", not other, f"different: {', '.join(other)}" if other else "equal to the checkpoint's")


def _same_counts(bundle: Bundle, said: Mapping[str, Any]) -> Check:
    counts = passport.parameter_counts(bundle)
    seen = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return Check("counts", counts == said["parameters"], seen)
