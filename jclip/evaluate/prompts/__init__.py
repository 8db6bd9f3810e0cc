"""Prompts for zero-shot classification: sentences with {} in place of a class name.

    zh, en, …              jclip's own in the 18 languages of AltCLIP-m18: LANGUAGE.json in this folder
    cn_clip                cn_clip's (Chinese), chosen by data set as in its zeroshot_evaluation.py
    cn_clip:aircraft       one of cn_clip's sets by name
    open_clip              OpenAI's 80 for ImageNet, from open_clip (English); open_clip:simple for a few
    FILE.json              {"language": "zh", "general": ["一张{}的照片"], "flower": [...]}

A set for the kind of the classes, such as "flower", is preferred to the general one.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.errors import JclipError
from jclip.evaluate.cn_clip_files import is_text
from jclip.io.json_files import read_json

_HERE = Path(__file__).parent

LANGUAGES: tuple[str, ...] = tuple(sorted(file.stem for file in _HERE.glob("*.json")))
"""Languages of jclip's own prompts."""

_CN_CLIP = {
    "fgvc-aircraft-2013b-variants102": "aircraft",
    "food-101": "food",
    "oxford-flower-102": "flower",
    "eurosat_clip": "eurosat",
    "resisc45_clip": "eurosat",
    "country211": "country211",
}
"""cn_clip's set of prompts by data set; for all others it uses its general set "openai"."""

_OPEN_CLIP = {"openai": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}


@dataclass(frozen=True)
class Prompts:
    """Prompt ensemble.

    Attributes:
      language: language of the sentences, BCP 47.
      templates: sentences with one {} each.
    """

    language: str
    templates: tuple[str, ...]


def load_prompts(name: str, dataset: str = "", kind: str = "general") -> Prompts:
    """Loads a prompt ensemble.

    Args:
      name: a language, "cn_clip", "cn_clip:SET", "open_clip", "open_clip:SET" or a .json file.
      dataset: name of the data set, by which cn_clip chooses.
      kind: kind of the classes, such as "flower".

    Raises:
      JclipError: the name is unknown, its package is not installed, or the file is not valid.
    """
    package, _, chosen = name.partition(":")
    if package == "cn_clip":
        return Prompts("zh", _of_cn_clip(chosen or _CN_CLIP.get(dataset, "openai")))
    if package == "open_clip":
        return Prompts("en", _of_open_clip(chosen or "openai"))
    file = _HERE / f"{name}.json" if name in LANGUAGES else Path(name)
    if file.suffix != ".json":
        raise JclipError(
            f"there are no prompts {name!r}: choose a language ({', '.join(LANGUAGES)}), cn_clip, open_clip, or a .json"
        )
    return _read(file, kind)


def imagenet_names(package: str) -> list[str]:
    """Returns ImageNet's 1000 class names, from "cn_clip" in Chinese or from "open_clip" in English.

    Raises JclipError if the package is not installed.
    """
    if package == "cn_clip":
        return list(_module("cn_clip", "eval/imagenet_zeroshot_templates.py", "cn-clip").imagenet_classnames)
    return list(_module("open_clip", "zero_shot_metadata.py", "open-clip-torch").IMAGENET_CLASSNAMES)


def _read(file: Path, kind: str) -> Prompts:
    data = read_json(file, "as prompts")
    if not isinstance(data, Mapping) or not isinstance(data.get("general"), list):
        raise JclipError(f'{file} holds no prompts: write {{"language": "zh", "general": ["…{{}}…"]}}')
    chosen = kind if kind in data else "general"
    templates = data[chosen]
    if not isinstance(templates, list) or not templates:
        raise JclipError(f"{file}: {chosen!r} must be a list of sentences with {{}} for the name, at least one")
    for number, template in enumerate(templates, 1):
        if not is_text(template) or template.count("{}") != 1:
            raise JclipError(f"{file}, {chosen!r}, sentence {number}: {template!r} must hold {{}} once")
    return Prompts(str(data.get("language", "")), tuple(templates))


def _of_cn_clip(name: str) -> tuple[str, ...]:
    module = _module("cn_clip", "eval/cvinw_zeroshot_templates.py", "cn-clip")
    ending = "_templates"
    known = [one.removesuffix(ending) for one in vars(module) if one.endswith(ending)]
    if name not in known:
        raise JclipError(f"cn_clip has no prompts {name!r}: it has {', '.join(known)}")
    return _as_text(getattr(module, f"{name}{ending}"))


def _of_open_clip(name: str) -> tuple[str, ...]:
    if name not in _OPEN_CLIP:
        raise JclipError(f"open_clip has no prompts {name!r}: it has {', '.join(_OPEN_CLIP)}")
    return _as_text(getattr(_module("open_clip", "zero_shot_metadata.py", "open-clip-torch"), _OPEN_CLIP[name]))


def _as_text(functions: Sequence[Callable[[str], str]]) -> tuple[str, ...]:
    return tuple(function("{}") for function in functions)


def _module(package: str, path: str, distribution: str) -> Any:
    """Imports one file of a package without the package itself, which would import torch."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise JclipError(
            f"{package} is not installed: install it with pip install {distribution}, or choose other prompts"
        )
    file = Path(found.submodule_search_locations[0]) / path
    spec = importlib.util.spec_from_file_location(f"jclip_{package}_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise JclipError(f"{file} cannot be imported: install another version of {distribution}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (OSError, ImportError) as error:
        raise JclipError(f"{file} cannot be read ({error}): install another version of {distribution}") from None
    return module
