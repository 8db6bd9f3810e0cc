"""Where weights come from: a file, a folder as a hub keeps it, or hf://ORG/NAME[@REVISION].

Files are parsed, never executed: pickles and TorchScript archives are read by `torch_file`, which runs nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.conversion.families import family_named, respelt
from jclip.conversion.families.family import Family
from jclip.conversion.files import WEIGHTS, shards, weights_at
from jclip.conversion.hf.hub import SCHEME, fetch
from jclip.conversion.readings import find_reading
from jclip.errors import JclipError
from jclip.io.json_files import read_object
from jclip.io.tensors import Lazy, open_safetensors, shown
from jclip.io.torch_file import TorchFile, open_torch_file

_CONFIGS = ("config.json", "open_clip_config.json")
_MODEL_TYPES = {"bert": "bert", "xlm-roberta": "xlm-r", "xlm_roberta": "xlm-r"}
"""Of transformers, for the families that have the same keys: model_type -> family."""


@dataclass(frozen=True)
class Source:
    """A checkpoint, opened.

    Attributes:
      name: as the user gave it.
      folder: the model's, with its tokenizer and preprocessing; None when the user named a file of weights alone, which
        may lie anywhere.
      family: its kind.
      tensors: key -> tensor, keys in the family's spelling and without prefix and wrappers.
      spelt: key -> (file, key as it is spelt there).
      prefix: of the keys as they are spelt, "state_dict.module.": where in the files the model is.
      aside: key as spelt -> why it is no part of the model: an optimizer's state, a head.
      ignored: top names of numbers and strings beside the tensors: "epoch".
      files: the weights.
      beside: what else was read to open them: the index of their shards, the configuration.
      config: config.json or open_clip_config.json; empty where there is none.
      said_in: the configuration's file for messages, or what stands for it.
      commit: of a hub's repository; None for what was there already.
      note: what is to be known of the copy that was read; None in the usual case.
    """

    name: str
    folder: Path | None
    family: Family
    tensors: dict[str, Lazy]
    spelt: dict[str, tuple[Path, str]]
    prefix: str
    aside: dict[str, str]
    ignored: tuple[str, ...]
    files: tuple[Path, ...]
    beside: tuple[Path, ...]
    config: Mapping[str, Any]
    said_in: str
    commit: str | None = None
    note: str | None = None

    def name_of(self, key: str) -> str:
        """A key for an error: its file, and how it is spelt there."""
        if key in self.spelt:
            file, spelt = self.spelt[key]
            return f"{file}: {spelt}"
        return f"{self.files[0] if len(self.files) == 1 else self.folder}: {shown(self.prefix)}{key}"


def open_source(name: str, family: str | None = None, *, key: str | None = None, prefix: str | None = None) -> Source:
    """Opens a checkpoint; its tensors are read when they are asked for.

    Args:
      name: a file, a folder, or hf://ORG/NAME, with @REVISION or without.
      family: a key of FAMILIES; None to find out.
      key: the entry of a nested dict in which the model is; None to find out.
      prefix: of the model's keys; None to find out.

    Raises:
      JclipError: nothing is there, what is there is damaged, unsafe or of no known family, or it is seen to be of
        another than the one that was named; or there are several models, which are listed.
    """
    if not name.strip():
        raise JclipError("SRC is empty: give a file, a folder, or hf://ORG/NAME")
    forced = family_named(family) if family is not None else None
    snapshot = fetch(name) if name.startswith(SCHEME) else None
    place = snapshot.folder if snapshot else Path(name)
    weights = weights_at(place)
    folder = weights.parent if place.is_dir() or place.name in WEIGHTS else None
    files = shards(weights)
    said_in = _config_file(folder, weights.name) if folder else None
    config = read_object(said_in) if said_in else {}
    raw: dict[str, tuple[Path, Lazy]] = {}
    torchscript = False
    ignored: dict[str, None] = {}
    for file in files:
        opened = _opened(file)
        torchscript |= opened.torchscript
        if not opened.torchscript:  # whose modules have settings of their own
            ignored |= dict.fromkeys(shown(value.partition(".")[0]) for value in opened.values)
        for spelt, tensor in opened.tensors.items():
            if spelt in raw:
                raise JclipError(f"{file}: {shown(spelt)} is in {raw[spelt][0]} as well: fetch both again")
            raw[spelt] = (file, tensor)
    where = str(place)
    if not raw:
        raise JclipError(f"{where} holds no tensors: check the path, or fetch it again")
    shapes = {spelt: tensor.shape for spelt, (_, tensor) in raw.items()}
    reading, aside = find_reading(shapes, config, where, openai=torchscript, family=forced, key=key, prefix=prefix)
    if forced:
        _check_forced(forced, reading.family, reading.keys, config, where)
    found = forced or reading.family
    tensors: dict[str, Lazy] = {}
    spelt_as: dict[str, tuple[Path, str]] = {}
    for bare, spelt in reading.keys.items():
        if spelt in aside:
            continue
        canonical = respelt(bare, found)
        if canonical in tensors:
            twin = shown(spelt_as[canonical][1])
            raise JclipError(
                f"{raw[spelt][0]}: {shown(spelt)} and {twin} are two names of one tensor: leave one of them away"
            )
        tensors[canonical], spelt_as[canonical] = raw[spelt][1], (raw[spelt][0], spelt)
    return Source(
        name=name,
        folder=folder,
        family=found,
        tensors=tensors,
        spelt=spelt_as,
        prefix=reading.spelt_prefix,
        aside=aside,
        ignored=tuple(name for name in ignored if not any(spelt.startswith(f"{name}.") for spelt in raw)),
        files=files,
        beside=tuple(file for file in (weights, said_in) if file and file not in files),
        config=config,
        said_in=str(said_in or folder or place),
        commit=snapshot.commit if snapshot else None,
        note=snapshot.note if snapshot else None,
    )


def is_bundle(path: Path) -> bool:
    """Whether a folder is one of our bundles."""
    return (path / "config.json").is_file() and (path / "parameters.safetensors").is_file()


def _check_forced(family: Family, looks: Family, keys: Iterable[str], config: Mapping[str, Any], where: str) -> None:
    """Refuses a family that the files belie.

    Keys tell most families apart. BERT and XLM-R have the same, as have OpenAI's files and open_clip's. There the user
    is contradicted by a model_type, by an archive of the kind in which OpenAI alone published, or by open_clip's
    configuration; sizes only suggest. So it cannot be told whether weights without any of these were trained as the
    user says: a plain state dict of OpenAI's from one of open_clip's, or a BERT that has one type of token.
    """
    spelt = {respelt(key, family) for key in keys}
    missing = [key for key in family.signature if key not in spelt]
    told = _MODEL_TYPES.get(str(config.get("model_type")))
    if missing:
        seen = f"it has no {missing[0]}"
    elif family.name in _MODEL_TYPES.values() and told is not None and told != family.name:
        seen = f"its model_type is {config['model_type']}"
    elif family.name == "open-clip" and looks.name == "openai-clip":
        seen = "it has what OpenAI's archives alone have,"
    elif family.name == "openai-clip" and looks.name == "open-clip" and _is_open_clips(config):
        seen = "open_clip's configuration lies beside it"
    else:
        return
    raise JclipError(
        f"{where} is not of the family {family.name}: {seen} and looks like {looks.name}, leave --family away"
    )


def _is_open_clips(config: Mapping[str, Any]) -> bool:
    return "vision_cfg" in config or "model_cfg" in config


def _opened(file: Path) -> TorchFile:
    if file.suffix == ".safetensors":
        return TorchFile(open_safetensors(file), {}, torchscript=False)
    return open_torch_file(file)


def _config_file(folder: Path, weights: str) -> Path | None:
    # Some repositories hold a model twice, for open_clip and for transformers, each with its own configuration.
    names = reversed(_CONFIGS) if weights.startswith("open_clip_") else _CONFIGS
    return next((folder / name for name in names if (folder / name).is_file()), None)
