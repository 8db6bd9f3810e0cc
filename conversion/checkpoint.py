"""Opens a checkpoint: a file, a folder in the hub's layout, or hf://ORG/NAME[@REVISION]. Executes no code from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.conversion.candidates import find_model
from jclip.conversion.checkpoint_files import WEIGHTS, shards, weights_at
from jclip.conversion.families import family_named, respelt
from jclip.conversion.families.family import Family
from jclip.conversion.hf.hub import SCHEME, fetch
from jclip.errors import JclipError
from jclip.io.json_files import read_object
from jclip.io.tensor_files import open_tensor_file
from jclip.io.tensors import Lazy
from jclip.plain import shown

_CONFIGS = ("config.json", "open_clip_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """Open checkpoint.

    Attributes:
      name: name that the user gave.
      folder: folder of the model with its tokenizer and preprocessing; None for a file whose name is not in WEIGHTS.
      tensors: tensors by key, in the family's spelling, without prefix and wrappers.
      spelt: file and original name of each key.
      prefix: prefix of the original keys, such as "state_dict.module.".
      left_out: reason why a tensor is not part of the model, by original name.
      ignored: top-level names of values that are not tensors, such as "epoch".
      files: files with weights.
      other_files: other files that were read: the index of the shards, the configuration.
      config: contents of config.json or open_clip_config.json; empty without it.
      config_name: configuration file for messages, or the folder.
      commit: commit of a hub's repository; None for local files.
      note: remark for the passport, such as that the hub's cache was used; usually None.
    """

    name: str
    folder: Path | None
    family: Family
    tensors: dict[str, Lazy]
    spelt: dict[str, tuple[Path, str]]
    prefix: str
    left_out: dict[str, str]
    ignored: tuple[str, ...]
    files: tuple[Path, ...]
    other_files: tuple[Path, ...]
    config: Mapping[str, Any]
    config_name: str
    commit: str | None = None
    note: str | None = None

    @property
    def where(self) -> str:
        """Folder or file for messages."""
        return str(self.folder or self.files[0])

    def name_of(self, key: str) -> str:
        """Returns a key's file and original name for messages."""
        if key in self.spelt:
            file, spelt = self.spelt[key]
            return f"{file}: {spelt}"
        return f"{self.files[0] if len(self.files) == 1 else self.folder}: {shown(self.prefix)}{key}"


def open_checkpoint(
    name: str, family: str | None = None, *, key: str | None = None, prefix: str | None = None
) -> Checkpoint:
    """Opens a checkpoint; its tensors are read on demand.

    Raises JclipError if it is missing or damaged, refers to code, is not of a known family or of `family`, or holds
    several models, which the message lists.

    Args:
      name: a file, a folder, or hf://ORG/NAME with an optional @REVISION.
      family: a name in FAMILIES; None to detect it.
      key: entry of a nested dict that holds the model; None to search everywhere.
      prefix: prefix of the model's keys; None to detect it.
    """
    if not name.strip():
        raise JclipError("SRC is empty: give a file, a folder, or hf://ORG/NAME")
    forced = family_named(family) if family is not None else None
    snapshot = fetch(name) if name.startswith(SCHEME) else None
    place = snapshot.folder if snapshot else Path(name)
    weights = weights_at(place)
    folder = weights.parent if place.is_dir() or place.name in WEIGHTS else None
    files = shards(weights)
    config_file = _config_file(folder, weights.name) if folder else None
    config = read_object(config_file) if config_file else {}
    stored, values, torchscript = _open_files(files)
    if not stored:
        raise JclipError(f"{place} holds no tensors: check the path, or fetch it again")
    shapes = {spelt: tensor.shape for spelt, (_, tensor) in stored.items()}
    model, left_out = find_model(
        shapes, config, str(place), torchscript=torchscript, family=forced, key=key, prefix=prefix
    )
    if forced:
        found = {bare: shapes[spelt] for bare, spelt in model.keys.items()}
        missing = [key for key in forced.signature if key not in {respelt(key, forced) for key in found}]
        seen = f"it has no {missing[0]}" if missing else forced.contradiction(found, config, torchscript)
        if seen:
            looks = f"It looks like {model.family.name}: omit --family"
            raise JclipError(f"{place} is not of the family {forced.name}: {seen}. {looks}")
    chosen = forced or model.family
    keys = {bare: spelt for bare, spelt in model.keys.items() if spelt not in left_out}
    spelt = _respell(keys, chosen, {spelt: file for spelt, (file, _) in stored.items()})
    return Checkpoint(
        name=name,
        folder=folder,
        family=chosen,
        tensors={key: stored[original][1] for key, (_, original) in spelt.items()},
        spelt=spelt,
        prefix=model.spelt_prefix,
        left_out=left_out,
        ignored=tuple(top for top in values if not any(each.startswith(f"{top}.") for each in stored)),
        files=files,
        other_files=tuple(file for file in (weights, config_file) if file and file not in files),
        config=config,
        config_name=str(config_file or folder or place),
        commit=snapshot.commit if snapshot else None,
        note=snapshot.note if snapshot else None,
    )


def _open_files(files: Iterable[Path]) -> tuple[dict[str, tuple[Path, Lazy]], Iterable[str], bool]:
    """Returns (file, tensor) by original name, top-level names of other values, and True for TorchScript."""
    tensors: dict[str, tuple[Path, Lazy]] = {}
    ignored: dict[str, None] = {}
    torchscript = False
    for file in files:
        opened = open_tensor_file(file)
        torchscript |= opened.torchscript
        if not opened.torchscript:  # the values of TorchScript are settings of its modules
            ignored |= dict.fromkeys(shown(value.partition(".")[0]) for value in opened.values)
        for spelt, tensor in opened.tensors.items():
            if spelt in tensors:
                raise JclipError(f"{file}: {shown(spelt)} is in {tensors[spelt][0]} as well: fetch both again")
            tensors[spelt] = (file, tensor)
    return tensors, ignored, torchscript


def _respell(keys: Mapping[str, str], family: Family, file_of: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Returns the file and original name of each key, in the family's spelling; `keys` maps keys to original names."""
    found: dict[str, tuple[Path, str]] = {}
    for bare, spelt in keys.items():
        key = respelt(bare, family)
        if key in found:
            twin = shown(found[key][1])
            raise JclipError(f"{file_of[spelt]}: {shown(spelt)} and {twin} are two names of one tensor: remove one")
        found[key] = (file_of[spelt], spelt)
    return found


def _config_file(folder: Path, weights: str) -> Path | None:
    # Some repositories hold a model twice, for open_clip and for transformers, each with its own configuration.
    names = reversed(_CONFIGS) if weights.startswith("open_clip_") else _CONFIGS
    return next((folder / name for name in names if (folder / name).is_file()), None)
