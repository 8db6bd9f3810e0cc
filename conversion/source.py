"""Where weights come from: a file, a folder as a hub keeps it, or hf://ORG/NAME[@REVISION].

Files are parsed, never executed: pickles and TorchScript archives are read by `torch_file`, which runs nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.families import detect, family_named, respelt
from conversion.families.family import Family
from conversion.files import WEIGHTS, read_object, shards, weights_at
from conversion.hub import SCHEME, fetch
from conversion.torch_file import open_torch_file
from jclip.errors import JclipError
from jclip.tensors import Lazy, open_safetensors, shown

_CONFIGS = ("config.json", "open_clip_config.json")
# Around a state dict: training checkpoints, FlagAI's and DeepSpeed's, and wrappers for data parallelism.
_WRAPPERS = ("state_dict.", "model_state_dict.", "module.")
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
      tensors: key -> tensor, keys in the family's spelling and without wrappers.
      spelt: key -> (file, key as it is spelt there).
      aside: key as spelt -> why it is no part of the model: an optimizer's state around it.
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
    aside: dict[str, str]
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
        return f"{self.files[0] if len(self.files) == 1 else self.folder}: {key}"


def open_source(name: str, family: str | None = None) -> Source:
    """Opens a checkpoint; its tensors are read when they are asked for.

    Args:
      name: a file, a folder, or hf://ORG/NAME, with @REVISION or without.
      family: a key of FAMILIES; None to find out.

    Raises:
      JclipError: nothing is there, what is there is damaged, unsafe or of no known family, or it is seen to be of
        another than the one that was named.
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
    for file in files:
        tensors_in, is_torchscript = _tensors_in(file)
        torchscript |= is_torchscript
        for key, tensor in tensors_in.items():
            if key in raw:
                raise JclipError(f"{file}: {shown(key)} is in {raw[key][0]} as well: fetch both again")
            raw[key] = (file, tensor)
    inside, aside = _unwrapped(raw)
    where = str(place)
    if not inside:
        raise JclipError(f"{where} holds no tensors: check the path, or fetch it again")
    looks = detect({key: raw[spelt][1].shape for key, spelt in inside.items()}, config, where, openai=torchscript)
    if forced:
        _check_forced(forced, looks, inside, config, where)
    found = forced or looks
    tensors: dict[str, Lazy] = {}
    spelt_as: dict[str, tuple[Path, str]] = {}
    for key, spelt in inside.items():
        canonical = respelt(key, found)
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
        aside=aside,
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


def _tensors_in(file: Path) -> tuple[dict[str, Lazy], bool]:
    """Its tensors, and whether it is a TorchScript archive, as OpenAI's are."""
    if file.suffix == ".safetensors":
        return open_safetensors(file), False
    opened = open_torch_file(file)
    return opened.tensors, opened.torchscript


def _unwrapped(raw: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """{key without its wrappers: key}, and what lies outside the wrappers."""
    inside = {key: key for key in raw}
    aside: dict[str, str] = {}
    for wrapper in (*_WRAPPERS, "module."):
        if any(key.startswith(wrapper) for key in inside):
            outside = [spelt for key, spelt in inside.items() if not key.startswith(wrapper)]
            aside |= dict.fromkeys(outside, "beside the model's weights")
            inside = {key.removeprefix(wrapper): spelt for key, spelt in inside.items() if key.startswith(wrapper)}
    return inside, aside


def _config_file(folder: Path, weights: str) -> Path | None:
    # Some repositories hold a model twice, for open_clip and for transformers, each with its own configuration.
    names = reversed(_CONFIGS) if weights.startswith("open_clip_") else _CONFIGS
    return next((folder / name for name in names if (folder / name).is_file()), None)
