"""Composes the starting point of a recipe from a CLIP's image tower and a text encoder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax

from jclip import rules
from jclip.bundle import Bundle, is_bundle, open_bundle, split_statistics, write_files
from jclip.conversion.checkpoint_files import fingerprints
from jclip.conversion.converting import Progress, compared
from jclip.conversion.families import family_starting_with
from jclip.conversion.importing import CheckpointOptions, ImportedModel, import_model
from jclip.conversion.parity import passport
from jclip.errors import JclipError
from jclip.io.files import check_free, whole_folder
from jclip.io.tensors import Lazy
from jclip.models.build import init_variables
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.text_encoder import TextEncoderConfig

Role = Literal["all", "image", "text"]
"""Part that a source provides: a whole model, or one tower of a composed model."""
Part = ImportedModel | Bundle
"""An open source: a checkpoint or a bundle."""


@dataclass(frozen=True)
class Composed:
    """Starting point of a recipe.

    Attributes:
      copied: paths of the parameters that come from each source.
      new: initialisation of each other parameter, by path.
    """

    bundle: Bundle
    copied: dict[Role, list[str]]
    new: dict[str, dict[str, Any]]


def compose(image: str, text: str, destination: Path, *, seed: int = 0, report: Progress = print) -> dict[str, Any]:
    """Writes the starting point of a recipe: a CLIP's image tower with a text encoder. Returns the passport.

    With XLM-R the result starts AltCLIP (Chen et al. 2022, section 3.1): CLIP's image tower, text projection and logit
    scale, XLM-R, and a new head between XLM-R and the projection. With BERT it starts Chinese-CLIP (Yang et al. 2022,
    section 2.2): CLIP's image tower and logit scale, BERT, and a new text projection. Raises JclipError if `convert`
    would refuse a source or the destination, or the sources do not fit together.

    Args:
      image: checkpoint or bundle of a dual encoder.
      text: checkpoint or bundle of a text encoder.
      destination: folder of the bundle, which must not exist.
      seed: seed of the new parameters.
      report: receives the name of each step.
    """
    check_free(destination)
    if not -(2**31) <= seed < 2**32:
        raise JclipError(f"--seed {seed} has more than 32 bits: choose a smaller one")
    names: dict[Role, str] = {"image": image, "text": text}
    parts: dict[Role, Part] = {}
    for role, name in names.items():
        report(f"reading {name}")
        parts[role] = open_part(name, role)
    start = composed(parts["image"], parts["text"], seed, (image, text))
    with whole_folder(destination, replace=False) as partial:
        report("writing")
        write_files(start.bundle, partial)
        written = open_bundle(partial)
        sources = []
        for role, part in parts.items():
            facts = {"role": role, **facts_of(part, names[role], role), "copied": start.copied[role]}
            if isinstance(part, ImportedModel):
                report(f"comparing {names[role]} with PyTorch, layer by layer")
                facts["comparison"] = compared(part, as_written(part, start.copied[role], written.tensors()))
            sources.append(facts)
        made = passport.make(written, sources, new=start.new, seed=seed)
        passport.write(made, partial)
    return made


def open_part(name: str, role: Role, options: CheckpointOptions = CheckpointOptions()) -> Part:  # noqa: B008
    """Opens a bundle, or a checkpoint with options. Raises JclipError if it is missing, damaged, or unknown."""
    if is_bundle(Path(name)):
        return open_bundle(name)
    return import_model(name, options, text=role != "image")


def facts_of(part: Part, name: str, role: Role) -> dict[str, Any]:
    """Returns the passport's entry for a source, with the hashes of its files."""
    if isinstance(part, ImportedModel):
        return part.facts()
    folder = Path(name)
    read = [folder / "config.json", folder / "parameters.safetensors"]
    if role != "image":
        read += [file for file in (folder / "tokenizer").rglob("*") if file.is_file()]
    files = {file.relative_to(folder).as_posix(): file for file in read}
    own = passport.read(folder) if (folder / passport.FILE).is_file() else None
    return {"name": name, "family": "bundle", "options": {}, "files": fingerprints(files), "passport": own}


def as_written(model: ImportedModel, copied: Iterable[str], written: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Returns the written parameters of a source, completed from the source so that their towers can run.

    AltCLIP's starting point, for example, holds only the projection of CLIP's text tower. To compare it, the whole
    tower must run.
    """
    taken = {path: written[path] for path in copied}
    towers = {path.partition("/")[0] for path in taken}
    return {path: leaf for path, leaf in model.tensors().items() if path.partition("/")[0] in towers} | taken


def composed(image: Part, text: Part, seed: int, names: tuple[str, str]) -> Composed:
    """Composes two parts. Raises JclipError if the first has no image tower, or the second is not a text encoder."""
    config, encoder, tokenizer = image.config, text.config, text.tokenizer
    if not isinstance(config, DualEncoderConfig):
        raise JclipError(f"--image {names[0]} has no image tower: name a CLIP")
    if not isinstance(encoder, TextEncoderConfig) or tokenizer is None:
        raise JclipError(f"--text {names[1]} is not a text encoder alone: name a BERT, a RoBERTa-wwm or an XLM-R")
    family, start = family_starting_with(encoder.text.conversion)
    if start.teacher not in ("", config.text.conversion):
        raise JclipError(f"--image {names[0]} lacks CLIP's text tower, on which {family.name} builds: name a CLIP")
    from_image = {
        path: leaf
        for path, leaf in image.tensors().items()
        if path in start.kept or path.startswith(("image/", "batch_stats/"))
    }
    from_text = text.tensors()
    head = config.text.width if start.teacher else None
    together = DualEncoderConfig(config.image, encoder.text, config.embed_dim, head, config.logit_scale_init)
    new = start.new(encoder.text.width)
    params, stats = split_statistics(from_image | from_text | _initialised(together, tuple(new), seed))
    preprocessing = image.preprocessing
    if preprocessing and start.resizes:
        preprocessing = replace(preprocessing, resize=family.resize)
    bundle = Bundle(
        config=together,
        params=rules.tree_from_paths(params),
        stats=rules.tree_from_paths(stats),
        tokenizer=tokenizer.as_kind(family.tokenizer),
        preprocessing=preprocessing,
        context_length=min(family.context_length or encoder.text.longest, encoder.text.longest),
        provenance={"composed_from": {"image": names[0], "text": names[1]}},
    )
    return Composed(bundle, copied={"image": sorted(from_image), "text": sorted(from_text)}, new=dict(new))


def _initialised(config: DualEncoderConfig, paths: tuple[str, ...], seed: int) -> dict[str, Lazy]:
    """Returns these parameters, initialised as in training from scratch; computes no others."""

    def pick(key: jax.Array) -> dict[str, jax.Array]:
        everything = rules.paths_of(init_variables(config, key)["params"])
        return {path: everything[path] for path in paths}

    values = jax.device_get(jax.jit(pick)(jax.random.key(seed)))
    return {path: Lazy.of(value) for path, value in values.items()}
