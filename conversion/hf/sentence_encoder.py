"""Settings of a sentence encoder in the files of sentence-transformers."""

from pathlib import Path
from typing import Literal

from jclip.errors import JclipError
from jclip.io.json_files import read_json, read_object
from jclip.plain import shown

_LENGTH, _MODULES, _POOLING = "sentence_bert_config.json", "modules.json", "1_Pooling/config.json"
_SUPPORTED = ("Transformer", "Pooling", "Normalize")
_POOLINGS: dict[str, Literal["cls", "mean"]] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def sentence_files(folder: Path) -> dict[str, Path]:
    """Returns the files that the functions below read, by their name in the passport."""
    return {name: folder / name for name in (_LENGTH, _MODULES, _POOLING) if (folder / name).is_file()}


def read_pooling(folder: Path) -> Literal["cls", "mean"] | None:
    """Returns the pooling of a sentence encoder; None without a file of 1_Pooling.

    Raises JclipError if the encoder pools in another way, or has further modules such as Dense.
    """
    modules, pooling = folder / _MODULES, folder / _POOLING
    if modules.is_file():
        for module in read_json(modules):
            kind = str(module.get("type") if isinstance(module, dict) else module)
            if kind.rpartition(".")[2] not in _SUPPORTED:
                raise JclipError(
                    f"{modules} has a module {shown(kind)}, which jclip does not support: convert another model"
                )
    if not pooling.is_file():
        return None
    said = read_object(pooling)
    modes = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    if len(modes) == 1 and modes[0] in _POOLINGS:
        return _POOLINGS[modes[0]]
    raise JclipError(
        f"{pooling} pools by {', '.join(modes) or 'nothing'}, but jclip supports {' or '.join(_POOLINGS)}: convert "
        "another model"
    )


def read_longest(folder: Path) -> int | None:
    """Returns a sentence encoder's maximum sequence length, if given. Raises JclipError if it is not a number."""
    if not (folder / _LENGTH).is_file():
        return None
    said = read_object(folder / _LENGTH).get("max_seq_length")
    if said is not None and not (isinstance(said, int) and said > 2):
        raise JclipError(f"{folder / _LENGTH}: max_seq_length is {said!r}, but must be a number of tokens: correct it")
    return said
