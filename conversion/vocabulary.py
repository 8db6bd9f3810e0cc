"""Finds and loads the tokenizer of a checkpoint's text tower."""

import importlib.util
from pathlib import Path

from jclip.conversion.checkpoint import Checkpoint
from jclip.conversion.families.family import Family
from jclip.errors import JclipError
from jclip.names import TokenizerKind
from jclip.tokenizers.text import Tokenizer, load_tokenizer, vocabulary_file

_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "merges.txt")
_BESIDE: dict[TokenizerKind, str] = {
    "wordpiece": "tokenizer_config.json",
    "bert": "tokenizer_config.json",
    "clip_bpe": "vocab.json",
}
"""Second file that a kind of tokenizer reads if it exists."""
_FEWEST = 0.9  # tokens per embedding; some models pad the embeddings, at most to a multiple of 128


def find_tokenizer(
    checkpoint: Checkpoint, embeddings: int, given: Path | str | None
) -> tuple[Tokenizer, dict[str, Path]]:
    """Loads the tokenizer that the user gave, else the one beside the weights, else the one in the makers' package.

    Returns it, and the files from which it was read, by their name in the passport. Raises JclipError if it is missing,
    or does not fit `embeddings`, the model's number of token embeddings.
    """
    place, family = _place(checkpoint, given), checkpoint.family
    tokenizer = load_tokenizer(place, family.tokenizer)
    if tokenizer.kind != family.tokenizer:
        raise JclipError(
            f"{place} is a {tokenizer.kind} vocabulary, but {family.title} uses {family.tokenizer}: give the model's "
            "own with --tokenizer"
        )
    size = tokenizer.vocab_size
    if not _FEWEST * embeddings <= size <= embeddings:
        what = "another model's vocabulary" if size > embeddings else "cut off, or another model's"
        raise JclipError(
            f"{place} has {size} tokens, but the model has {embeddings} token embeddings: it is {what}. Fetch it "
            "again, or give the model's own with --tokenizer"
        )
    return tokenizer, _files(place, tokenizer.kind)


def packaged_vocabulary(family: Family) -> Path | None:
    """Returns the vocabulary in the makers' package, without importing it; None if it is not installed."""
    if family.vocabulary is None:
        return None
    package, name = family.vocabulary
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    return None


def _place(checkpoint: Checkpoint, given: Path | str | None) -> Path:
    if given is not None:
        if not Path(given).exists():
            raise JclipError(f"there is no tokenizer at {given}: give its path with --tokenizer")
        return Path(given)
    folder, family = checkpoint.folder, checkpoint.family
    if folder and any((folder / name).is_file() for name in _FILES):
        return folder
    if found := packaged_vocabulary(family):
        return found
    package = f", or install {family.vocabulary[0].replace('_', '-')}" if family.vocabulary else ""
    raise JclipError(f"{checkpoint.where} comes without its vocabulary: give --tokenizer{package}")


def _files(place: Path, kind: TokenizerKind) -> dict[str, Path]:
    """Returns the files of a tokenizer by name."""
    file = vocabulary_file(place)
    beside = [file.with_name("jclip_tokenizer.json")] if place.is_dir() else []
    if kind in _BESIDE and not (kind == "clip_bpe" and file.suffix == ".json"):
        beside.append(file.with_name(_BESIDE[kind]))
    return {each.name: each for each in (file, *beside) if each.is_file()}
