"""`jclip convert SRC DST`, `jclip convert --image A --text B DST`, `jclip convert BUNDLE DST --to hf`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from jclip.cli.options import read
from jclip.console import Console, facts, text
from jclip.errors import JclipError
from jclip.io.files import check_writable
from jclip.models.transformer import Activation
from jclip.plain import print_json

_READING = ("family", "tokenizer", "activation", "image_size", "key", "prefix")
_CHOICES = (*_READING, "image", "text", "seed", "to")


@dataclass(frozen=True)
class ConvertOptions:
    """Converts a PyTorch or safetensors checkpoint to a bundle, or a bundle back.

    SRC is a file, a folder, or hf://ORG/NAME (hf://ORG/NAME@REVISION for a branch, a tag or a commit): AltCLIP,
    Chinese-CLIP (Hugging Face or cn_clip), CLIP (OpenAI, open_clip or Hugging Face), XLM-R, BERT or RoBERTa-wwm. The
    family is detected. DST must not exist. It gets a passport.json with the hash of every file, the mapping of every
    tensor, and the difference from the PyTorch model layer by layer.

    Attributes:
      paths: SRC and DST; DST alone with --image and --text.
      family: family of the checkpoint, if it is not detected: altclip, chinese-clip, cn-clip, clip, openai-clip,
        open-clip, xlm-r, bert.
      tokenizer: file or folder with the text tower's vocabulary, if it is not beside the weights.
      activation: activation function of an open_clip checkpoint that has no open_clip_config.json.
      image_size: interpolate the position embeddings to this image size in pixels, such as 336, like the checkpoint's
        own library.
      key: entry of the file's dict with the model, such as ema or state_dict, if there are several.
      prefix: prefix of the model's keys, such as model.student, if there are several. '' takes the keys unchanged.
      image: with --text: a CLIP whose image tower is the starting point of a recipe.
      text: with --image: XLM-R (for AltCLIP) or a Chinese RoBERTa-wwm (for Chinese-CLIP).
      seed: seed for the parameters that neither --image nor --text has; 0 by default.
      to: write SRC, a bundle or another model, for transformers (a folder) or for cn_clip (a .pt file).
      json: print the passport as JSON; with --to, the path that was written.
    """

    paths: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="[SRC] DST", help_behavior_hint="")]]
    family: str | None = None
    tokenizer: Path | None = None
    activation: Activation | None = None
    image_size: int | None = None
    key: str | None = None
    prefix: str | None = None
    image: str | None = None
    text: str | None = None
    seed: int | None = None
    to: Literal["hf", "cn-clip"] | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ConvertOptions, arguments, "jclip convert")
    console = Console(stderr=True, quiet=options.json)
    source, destination = _paths(options)
    check_writable(destination)
    from jclip import conversion
    from jclip.loading import local_bundle

    if options.to:
        reader = conversion.export(local_bundle(source), destination, options.to)
        if options.json:
            print_json({"written": str(destination), "for": reader})
        else:
            console.tell(f"{destination}: for {reader}")
        return 0
    with console.working("reading") as say:

        def report(what: str) -> None:
            say(what)
            if not console.is_terminal:
                console.tell(what)

        if options.image is not None and options.text is not None:
            seed = options.seed or 0
            passport = conversion.compose(options.image, options.text, destination, seed=seed, report=report)
        else:
            asked = conversion.CheckpointOptions(**{name: getattr(options, name) for name in _READING})
            passport = conversion.convert(source, destination, asked, report)
    if options.json:
        print_json(passport, indent=1)
    else:
        console.print(_table(passport, destination))
        _print_new(passport, console)
    return 0


def _paths(options: ConvertOptions) -> tuple[str, Path]:
    composing = options.image is not None or options.text is not None
    if composing and (options.image is None or options.text is None):
        raise JclipError("--image and --text belong together: give both, or SRC")
    if composing:
        _only(options, ("image", "text", "seed"), "--image and --text", "convert each part first, and name the bundles")
    elif options.to:
        _only(options, ("to",), "--to", "a bundle is written as it is")
    else:
        _only(options, _READING, "SRC alone", "it is for --image and --text")
    if len(options.paths) != (1 if composing else 2):
        raise JclipError(f"give {'DST alone' if composing else 'SRC and DST'}: {len(options.paths)} path(s) given")
    return options.paths[0], Path(options.paths[-1])


def _only(options: ConvertOptions, fitting: Sequence[str], what: str, remedy: str) -> None:
    for name in _CHOICES:
        if name not in fitting and getattr(options, name) is not None:
            raise JclipError(f"--{name.replace('_', '-')} does not go with {what}: {remedy}")


def _table(passport: dict[str, Any], destination: Path) -> Table:
    table = facts(f"{destination}: passport")
    for source in passport["sources"]:
        table.add_section()
        at = f", commit {source['commit']}" if source.get("commit") else ""
        table.add_row("from", text(f"{source['name']} ({source['family']}{at})"))
        if "tensors" not in source:
            continue
        if source["prefix"]:
            table.add_row("found under", text(source["prefix"]))
        if source["left_out"]:
            table.add_row(text("left out", "yellow"), text(source["left_out"], longest=None))
        if source["ignored"]:
            table.add_row("ignored", text(", ".join(source["ignored"]), longest=None))
        tensors, comparison = source["tensors"], source["comparison"]
        table.add_row(
            "tensors", f"{tensors['read']} read, {tensors['mapped']} mapped, {len(tensors['dropped'])} dropped"
        )
        for assumed in source["assumed"]:
            table.add_row(text("assumed", "yellow"), text(assumed, longest=None))
        if not comparison["compared"]:
            table.add_row(text("not compared", "yellow"), text(comparison["why"], longest=None))
            continue
        table.add_row("compared with", text(comparison["reference"]))
        worst = max(layer["relative"] for layer in comparison["layers"])
        table.add_row("layers", f"{len(comparison['layers'])}; largest relative difference {worst:.1e}")
        for tower, value in comparison["embeddings"].items():
            table.add_row(f"{tower} embeddings", f"largest difference {value:.1e}")
        if comparison["logits"] is not None:
            table.add_row("logits", f"largest relative difference {comparison['logits']:.1e}")
    table.add_section()
    table.add_row("parameters", ", ".join(f"{name} {count:,}" for name, count in passport["parameters"].items()))
    return table


def _print_new(passport: dict[str, Any], console: Console) -> None:
    lines = [f"changed: {path}: {how}" for path, how in passport["changed"].items()]
    for source in passport["sources"]:
        if "copied" in source:
            lines.append(f"copied: {len(source['copied'])} parameters from {source['name']}")
    for path, how in passport["new"].items():
        drawn = f", standard deviation {how['standard_deviation']:g}, seed {passport['seed']}" if len(how) > 1 else ""
        lines.append(f"new: {path}: {how['initialiser']}{drawn}")
    for line in lines:
        console.tell(line)
