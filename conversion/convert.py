"""Weights in: a checkpoint, or an image tower and a text encoder, becomes a bundle with a passport."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from conversion import passport
from conversion.comparison import check, compare
from conversion.importing import Model, Options, import_model
from conversion.source import is_bundle
from jclip import rules
from jclip.bundle import Bundle, open_bundle, split_statistics, write_files
from jclip.errors import JclipError
from jclip.files import check_free, whole_folder
from jclip.models.build import init_variables
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.tensors import Lazy, shown

Report = Callable[[str], None]
"""Is told what is being done now."""


def convert(name: str, destination: Path, options: Options = Options(), report: Report = print) -> dict[str, Any]:  # noqa: B008
    """A checkpoint as a bundle.

    Args:
      name: a file, a folder, or hf://ORG/NAME.
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
    report(f"{model.source.family.title}: {len(model.imported.keys)} tensors")
    with whole_folder(destination, replace=False) as partial:
        report("writing")
        write_files(model.bundle, partial)
        report("comparing with PyTorch, layer by layer")
        written = open_bundle(partial).tensors()
        facts = {"role": "all", **model.facts(), "comparison": compared(model, written)}
        made = passport.make(model.bundle, [facts], changed=model.changed, new={})
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
    parts = []
    for name in (image, text):
        report(f"reading {name}")
        parts.append(_part(name))
    (image_model, image_bundle), (text_model, text_bundle) = parts
    bundle, new = composed(image_bundle, text_bundle, seed, (image, text))
    with whole_folder(destination, replace=False) as partial:
        report("writing")
        write_files(bundle, partial)
        sources = []
        for role, name, model in (("image", image, image_model), ("text", text, text_model)):
            report(f"comparing {name} with PyTorch, layer by layer")
            sources.append({"role": role, **(_facts(model) if model else _bundle_facts(name))})
        made = passport.make(bundle, sources, changed={}, new=new)
        passport.write(made, partial)
    return made


def composed(image: Bundle, text: Bundle, seed: int, names: tuple[str, str]) -> tuple[Bundle, dict[str, str]]:
    """The bundle of two parts, and {path: initialiser} of what is new in it.

    Raises:
      JclipError: the first has no image tower, or the second is no text encoder alone.
    """
    config, encoder = image.config, text.config
    if not isinstance(config, DualEncoderConfig):
        raise JclipError(f"--image {names[0]} has no image tower: name a CLIP")
    if not isinstance(encoder, TextEncoderConfig):
        raise JclipError(f"--text {names[1]} is no text encoder alone: name a BERT, a RoBERTa-wwm or an XLM-R")
    tensors = image.tensors()
    copied = {path: leaf for path, leaf in tensors.items() if path.startswith(("image/", "batch_stats/"))}
    copied["logit_scale"] = tensors["logit_scale"]
    copied |= text.tensors()
    altclip = encoder.text.position_offset == "after_padding"
    if altclip:
        if not isinstance(config.text, ClipTextConfig):
            raise JclipError(f"--image {names[0]} has no CLIP text tower, whose projection AltCLIP keeps: name a CLIP")
        copied["text/projection/kernel"] = tensors["text/projection/kernel"]
    head = config.text.width if altclip and isinstance(config.text, ClipTextConfig) else None
    together = DualEncoderConfig(config.image, encoder.text, config.embed_dim, head, config.logit_scale_init)
    made = ("text/head_norm/scale", "text/head_norm/bias", "text/head/kernel", "text/head/bias")
    new = _initialised(together, made if altclip else ("text/projection/kernel",), seed)
    deviation = 0.02 if altclip else encoder.text.width**-0.5
    how = {
        path: f"normal, standard deviation {deviation:g}, seed {seed}"
        if path.endswith("kernel")
        else ("ones" if path.endswith("scale") else "zeros")
        for path in new
    }
    params, stats = split_statistics(copied | new)
    bundle = Bundle(
        config=together,
        params=rules.tree_from_paths(params),
        stats=rules.tree_from_paths(stats),
        tokenizer=text.tokenizer,
        preprocessing=image.preprocessing,
        context_length=min(77 if altclip else 52, encoder.text.longest),
        provenance={"composed_from": {"image": names[0], "text": names[1]}},
    )
    return bundle, how


def compared(model: Model, tensors: dict[str, Lazy]) -> dict[str, Any]:
    """The comparison of a converted model with its PyTorch model, for the passport.

    Args:
      model: from `import_model`.
      tensors: its parameters as they were written. What was brought to another size is taken from the checkpoint.

    Raises:
      JclipError: the two models are not the same.
    """
    originals = {path: model.imported.tensors[path] for path in model.changed}
    try:
        comparison = compare(model.source, model.config, {**tensors, **originals})
    except ImportError as error:
        # A package that is there and does not import tells why in the error's cause, if anywhere.
        missing = isinstance(error, ModuleNotFoundError) and error.name
        why = f"{error.name} is not installed" if missing else f"import failed, {shown(str(error.__cause__ or error))}"
        return passport.not_compared(f"{why}: pip install 'jclip[convert]', then jclip verify")
    check(comparison, model.source.name)
    return passport.compared(comparison)


def _part(name: str) -> tuple[Model | None, Bundle]:
    if is_bundle(Path(name)):
        return None, open_bundle(name)
    model = import_model(name)
    return model, model.bundle


def _facts(model: Model) -> dict[str, Any]:
    return {**model.facts(), "comparison": compared(model, model.bundle.tensors())}


def _bundle_facts(name: str) -> dict[str, Any]:
    folder = Path(name)
    inner = passport.read(folder) if (folder / passport.FILE).is_file() else None
    return {"name": name, "family": "bundle", "passport": inner}


def _initialised(config: DualEncoderConfig, paths: tuple[str, ...], seed: int) -> dict[str, Lazy]:
    """These parameters as training from scratch would begin with them; no others are computed."""

    def pick(key: jax.Array) -> dict[str, jax.Array]:
        everything = rules.paths_of(init_variables(config, key)["params"])
        return {path: everything[path] for path in paths}

    values = jax.device_get(jax.jit(pick)(jax.random.key(seed)))
    return {path: Lazy.of(value) for path, value in values.items()}
