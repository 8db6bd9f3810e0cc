"""Weights in: a checkpoint, or an image tower and a text encoder, becomes a bundle with a passport."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax

from jclip import rules
from jclip.bundle import Bundle, open_bundle, split_statistics, write_files
from jclip.conversion.files import fingerprints
from jclip.conversion.importing import Model, Options, import_model
from jclip.conversion.parity import passport
from jclip.conversion.parity.comparison import check, compare
from jclip.conversion.readings import summary
from jclip.conversion.source import Source, is_bundle
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.io.files import check_free, whole_folder
from jclip.io.tensors import Lazy, shown
from jclip.models.build import init_variables
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.text_encoder import TextEncoderConfig

Report = Callable[[str], None]
"""Is told what is being done now."""
Role = Literal["all", "image", "text"]
"""What a source gives: a whole model, or a tower of one that is composed."""
Part = Model | Bundle
"""A source, opened: a checkpoint or a bundle."""


_CONSTANTS = {"text/head_norm/scale": "ones", "text/head_norm/bias": "zeros", "text/head/bias": "zeros"}


@dataclass(frozen=True)
class Composed:
    """The starting point of a recipe.

    Attributes:
      bundle: all of it.
      copied: which parameters come from each source.
      new: {path: how it was initialised, as fields} of the others.
    """

    bundle: Bundle
    copied: dict[Role, list[str]]
    new: dict[str, dict[str, Any]]


def convert(name: str, destination: Path, options: Options = Options(), report: Report = print) -> dict[str, Any]:  # noqa: B008
    """A checkpoint as a bundle.

    Args:
      name: a file, a folder, or hf://ORG/NAME, with @REVISION or without.
      destination: the bundle's folder, which must not be there yet.
      options: what the checkpoint does not say itself.
      report: is told of the progress.

    Returns:
      The passport.

    Raises:
      JclipError: the checkpoint is missing, damaged or of no known family; the converted model is not the PyTorch
        model; the destination is taken, full or read-only. Nothing is left at the destination then.
    """
    check_free(destination)
    if is_bundle(Path(name)):
        raise JclipError(f"{name} is a bundle already: to write it as others read it, give --to hf or --to cn-clip")
    report(f"reading {name}")
    model = import_model(name, options)
    report(f"{model.source.family.title}: {len(model.imported.keys)} tensors{where_found(model.source)}")
    with whole_folder(destination, replace=False) as partial:
        report("writing")
        write_files(model.bundle(), partial)
        report("comparing with PyTorch, layer by layer")
        written = open_bundle(partial)
        facts = {"role": "all", **model.facts(), "comparison": compared(model, written.tensors())}
        made = passport.make(written, [facts], changed=model.changed)
        passport.write(made, partial)
    return made


def compose(image: str, text: str, destination: Path, *, seed: int = 0, report: Report = print) -> dict[str, Any]:
    """The starting point of a recipe: one model's image tower beside a text encoder.

    With XLM-R it is AltCLIP's (Chen et al. 2022, section 3.1): CLIP's image tower, its text projection and its logit
    scale; XLM-R; a new head between the two. With BERT it is Chinese-CLIP's (Yang et al. 2022, section 2.2): CLIP's
    image tower and its logit scale; the encoder; a new text projection.

    Args:
      image: a checkpoint or bundle of a dual encoder.
      text: a checkpoint or bundle of a text encoder.
      destination: the bundle's folder, which must not be there yet.
      seed: of what is new.
      report: is told of the progress.

    Returns:
      The passport, which says what is copied, what is new, and how that was initialised.

    Raises:
      JclipError: as of `convert`; or the two do not fit together.
    """
    check_free(destination)
    if not -(2**31) <= seed < 2**32:
        raise JclipError(f"--seed {seed} is no number of 32 bits: give a smaller one")
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
            if isinstance(part, Model):
                report(f"comparing {names[role]} with PyTorch, layer by layer")
                facts["comparison"] = compared(part, as_written(part, start.copied[role], written.tensors()))
            sources.append(facts)
        made = passport.make(written, sources, new=start.new, seed=seed)
        passport.write(made, partial)
    return made


def where_found(source: Source) -> str:
    """Returns where in its files a model was found, and what was left out, for people; "" where they hold no more."""
    under = f" under {shown(source.prefix)}" if source.prefix else ""
    return under + (f"; left out: {shown(summary(source.aside))}" if source.aside else "")


def open_part(name: str, role: Role, options: Options = Options()) -> Part:  # noqa: B008
    """A source: a checkpoint, or a bundle, which says all itself.

    Raises:
      JclipError: it is missing or damaged, or of no known family.
    """
    if is_bundle(Path(name)):
        return open_bundle(name)
    return import_model(name, options, text=role != "image")


def facts_of(part: Part, name: str, role: Role) -> dict[str, Any]:
    """What a passport says of a source, the hashes of its files included."""
    if isinstance(part, Model):
        return part.facts()
    folder = Path(name)
    read = [folder / "config.json", folder / "parameters.safetensors"]
    if role != "image":
        read += [file for file in (folder / "tokenizer").rglob("*") if file.is_file()]
    files = {file.relative_to(folder).as_posix(): file for file in read}
    own = passport.read(folder) if (folder / passport.FILE).is_file() else None
    return {"name": name, "family": "bundle", "options": {}, "files": fingerprints(files), "passport": own}


def as_written(model: Model, copied: Iterable[str], written: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """What was written of a source, under its own paths, with what its towers need beside that to run.

    So AltCLIP's start holds of CLIP's text tower the projection alone, which is compared on the tower that it is of.
    """
    taken = {path: written[path] for path in copied}
    towers = {path.partition("/")[0] for path in taken}
    return {path: leaf for path, leaf in model.tensors().items() if path.partition("/")[0] in towers} | taken


def composed(image: Part, text: Part, seed: int, names: tuple[str, str]) -> Composed:
    """Two parts as one model.

    Raises:
      JclipError: the first has no image tower, or the second is no text encoder alone.
    """
    config, encoder = image.config, text.config
    if not isinstance(config, DualEncoderConfig):
        raise JclipError(f"--image {names[0]} has no image tower: name a CLIP")
    if not isinstance(encoder, TextEncoderConfig):
        raise JclipError(f"--text {names[1]} is no text encoder alone: name a BERT, a RoBERTa-wwm or an XLM-R")
    assert text.tokenizer is not None
    tensors = image.tensors()
    from_image = {path: leaf for path, leaf in tensors.items() if path.startswith(("image/", "batch_stats/"))}
    from_image["logit_scale"] = tensors["logit_scale"]
    from_text = text.tensors()
    altclip = encoder.text.position_offset == "after_padding"
    if altclip:
        if not isinstance(config.text, ClipTextConfig):
            raise JclipError(f"--image {names[0]} has no CLIP text tower, whose projection AltCLIP keeps: name a CLIP")
        from_image["text/projection/kernel"] = tensors["text/projection/kernel"]
    head = config.text.width if altclip and isinstance(config.text, ClipTextConfig) else None
    together = DualEncoderConfig(config.image, encoder.text, config.embed_dim, head, config.logit_scale_init)
    made = ("text/head_norm/scale", "text/head_norm/bias", "text/head/kernel", "text/head/bias")
    new = _initialised(together, made if altclip else ("text/projection/kernel",), seed)
    normal = {"initialiser": "normal", "standard_deviation": 0.02 if altclip else encoder.text.width**-0.5}
    params, stats = split_statistics(from_image | from_text | new)
    bundle = Bundle(
        config=together,
        params=rules.tree_from_paths(params),
        stats=rules.tree_from_paths(stats),
        tokenizer=text.tokenizer if altclip else text.tokenizer.as_kind("wordpiece"),
        preprocessing=image.preprocessing if altclip else _squashed(image.preprocessing),
        context_length=min(77 if altclip else 52, encoder.text.longest),
        provenance={"composed_from": {"image": names[0], "text": names[1]}},
    )
    return Composed(
        bundle,
        copied={"image": sorted(from_image), "text": sorted(from_text)},
        new={path: normal if path.endswith("kernel") else {"initialiser": _CONSTANTS[path]} for path in new},
    )


def _squashed(preprocessing: Preprocessing | None) -> Preprocessing | None:
    """A CLIP's preprocessing as Chinese-CLIP's: a picture is made square, not cut (Yang et al. 2022, their code)."""
    return preprocessing and replace(preprocessing, resize="squash")


def compared(model: Model, tensors: Mapping[str, Lazy]) -> dict[str, Any]:
    """The comparison of a converted model with its PyTorch model, for the passport.

    Args:
      model: from `import_model`.
      tensors: its parameters as they were written; a tower of which there is none is left out. What was brought to
        another size is taken from the checkpoint.

    Raises:
      JclipError: the two models are not the same.
    """
    originals = {path: model.imported.tensors[path] for path in model.changed}
    try:
        comparison = compare(model.source, model.original, {**tensors, **originals})
    except ImportError as error:
        # A package that is there and does not import tells why in the error's cause, if anywhere.
        missing = isinstance(error, ModuleNotFoundError) and error.name
        why = f"{error.name} is not installed" if missing else f"import failed, {shown(str(error.__cause__ or error))}"
        return passport.not_compared(f"{why}: pip install 'jclip[convert]', then jclip verify")
    check(comparison, model.source.name)
    # The PyTorch model was built on what was assumed as well: the comparison cannot prove that.
    return {**passport.compared(comparison), "supposing": list(model.assumed)}


def _initialised(config: DualEncoderConfig, paths: tuple[str, ...], seed: int) -> dict[str, Lazy]:
    """These parameters as training from scratch would begin with them; no others are computed."""

    def pick(key: jax.Array) -> dict[str, jax.Array]:
        everything = rules.paths_of(init_variables(config, key)["params"])
        return {path: everything[path] for path in paths}

    values = jax.device_get(jax.jit(pick)(jax.random.key(seed)))
    return {path: Lazy.of(value) for path, value in values.items()}
