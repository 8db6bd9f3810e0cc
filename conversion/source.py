"""Where weights come from: a file, a folder as a hub keeps it, or hf://ORG/NAME.

Files are parsed, never executed: pickles and TorchScript archives are read by `torch_file`, which runs nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.families import detect, family_named, respelt
from conversion.families.family import Family
from conversion.torch_file import open_torch_file
from jclip.errors import JclipError
from jclip.tensors import Lazy, open_safetensors, shown

# In the order of preference: safetensors are quicker to read and hold nothing but tensors.
_WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
_CONFIGS = ("config.json", "open_clip_config.json")
# Around a state dict: training checkpoints, FlagAI's and DeepSpeed's, and wrappers for data parallelism.
_WRAPPERS = ("state_dict.", "model_state_dict.", "module.")
_PATIENCE = 20  # seconds
_HUB_FILES = ("*.json", "*.txt", "*.model", "*.gz")


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
      config: config.json or open_clip_config.json; empty where there is none.
      said_in: the configuration's file for messages, or what stands for it.
    """

    name: str
    folder: Path | None
    family: Family
    tensors: dict[str, Lazy]
    spelt: dict[str, tuple[Path, str]]
    aside: dict[str, str]
    files: tuple[Path, ...]
    config: Mapping[str, Any]
    said_in: str

    def name_of(self, key: str) -> str:
        """A key for an error: its file, and how it is spelt there."""
        if key in self.spelt:
            file, spelt = self.spelt[key]
            return f"{file}: {spelt}"
        return f"{self.files[0] if len(self.files) == 1 else self.folder}: {key}"


def open_source(name: str, family: str | None = None) -> Source:
    """Opens a checkpoint; its tensors are read when they are asked for.

    Args:
      name: a file, a folder, or hf://ORG/NAME.
      family: a key of FAMILIES; None to find out.

    Raises:
      JclipError: nothing is there, or what is there is damaged, unsafe or of no known family.
    """
    forced = family_named(family) if family else None
    place = _downloaded(name) if name.startswith("hf://") else Path(name)
    folder, files = _files(place)
    config, said_in = _config(folder, files[0].name if files else "") if folder else ({}, str(place))
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
    shapes = {key: raw[spelt][1].shape for key, spelt in inside.items()}
    found = forced or detect(shapes, config, where, openai=torchscript)
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
    if forced:
        _check_forced(forced, tensors, config, where)
    return Source(name, folder, found, tensors, spelt_as, aside, files, config, said_in)


def sha256(file: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_bundle(path: Path) -> bool:
    """Whether a folder is one of our bundles."""
    return (path / "config.json").is_file() and (path / "parameters.safetensors").is_file()


def read_json(file: Path) -> Any:
    """A JSON file.

    Raises:
      JclipError: it cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise JclipError(f"{file} cannot be read ({error}): mend it, or fetch it again") from None


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file with named fields.

    Raises:
      JclipError: it cannot be read, or holds something else.
    """
    data = read_json(file)
    if not isinstance(data, dict):
        raise JclipError(f"{file} holds no JSON object: mend it, or fetch it again")
    return data


def _check_forced(family: Family, tensors: Mapping[str, Lazy], config: Mapping[str, Any], where: str) -> None:
    missing = [key for key in family.signature if key not in tensors]
    if missing:
        looks = detect({key: tensor.shape for key, tensor in tensors.items()}, config, where)
        name = family.name
        raise JclipError(
            f"{where} is not of the family {name}: it has no {missing[0]} and looks like {looks.name}, leave --family "
            "away"
        )


def _files(place: Path) -> tuple[Path | None, tuple[Path, ...]]:
    """The model's folder, and the files with weights."""
    if place.is_file():
        folder = place.parent if place.name in _WEIGHTS else None
        return folder, _shards(place) if place.name.endswith(".index.json") else (place,)
    if not place.is_dir():
        raise JclipError(f"there is nothing at {place}: give a file, a folder, or hf://ORG/NAME")
    for name in _WEIGHTS:
        if (place / name).is_file():
            return place, _shards(place / name) if name.endswith(".index.json") else (place / name,)
    others = sorted(file for file in place.iterdir() if file.suffix in _ENDINGS and file.is_file())
    if len(others) == 1:
        return place, (others[0],)
    what = f"several files of weights ({', '.join(file.name for file in others)}): name one" if others else "no weights"
    raise JclipError(f"{place} holds {what}" + ("" if others else f": expected {', '.join(_WEIGHTS)} or a .pt"))


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise JclipError(f"{index} has no weight_map, so it is no index of a checkpoint: fetch it again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
            raise JclipError(f"{index} names the file {name!r}, which is not beside it: refusing to look there")
        if not (index.parent / name).is_file():
            raise JclipError(f"{index} names the file {shown(name)}, which is not there: fetch what is missing")
    return tuple(index.parent / name for name in names)


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


def _config(folder: Path, weights: str) -> tuple[Mapping[str, Any], str]:
    # Some repositories hold a model twice, for open_clip and for transformers, each with its own configuration.
    for name in reversed(_CONFIGS) if weights.startswith("open_clip_") else _CONFIGS:
        if (folder / name).is_file():
            return read_object(folder / name), str(folder / name)
    return {}, str(folder)


def _downloaded(name: str) -> Path:
    """A repository of the Hugging Face hub, in the local cache."""
    repository = name.removeprefix("hf://").strip("/")
    if repository.count("/") > 1 or not repository or ".." in repository:
        raise JclipError(f"{name} is no repository: write hf://ORG/NAME")
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise JclipError(f"{name} needs the package huggingface_hub: pip install 'jclip[convert]'") from None
    try:
        # Not `list_repo_files`, which knocks for half a minute where nobody answers.
        files = HfApi().model_info(repository, timeout=_PATIENCE).siblings or ()
        there = {file.rfilename for file in files}
        weights = next((weights for weights in _WEIGHTS if weights in there), None)
        wanted = [*_HUB_FILES, *_hub_weights(weights)]
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # its own, its HTTP library's, which is another in each version, or the system's
        return _cached(repository, name, error)


def _hub_weights(name: str | None) -> list[str]:
    if name is None:
        return [f"*{ending}" for ending in _ENDINGS]
    if name.endswith(".index.json"):
        stem, ending = name.removesuffix(".index.json").rsplit(".", 1)
        return [f"{stem}-*.{ending}"]
    return [name]


def _cached(repository: str, name: str, error: Exception) -> Path:
    """What an earlier download left, when the hub cannot be reached."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError):
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JclipError(
            f"{name} cannot be fetched ({shown(reason)}): check the name and the network, or download it elsewhere and "
            "give the folder"
        ) from None
