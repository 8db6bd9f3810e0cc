"""How transformers and open_clip write down the preprocessing of pictures and text, read and written."""

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jclip.conversion.hf.hf_tokenizer import check_kind, write_hf_tokenizer
from jclip.errors import JclipError
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.io.json_files import read_object
from jclip.ranges import RangeError
from jclip.tokenizers.text import Tokenizer

Family = Literal["altclip", "chinese-clip", "clip"]
_NESTED, _HF, _OPEN_CLIP = "processor_config.json", "preprocessor_config.json", "open_clip_config.json"
_IMAGES = "image_processor"
"""Where the processor_config.json of transformers 5 keeps it."""
_LARGEST = float(np.finfo(np.float32).max)
_BICUBIC = 3  # Pillow's number for it
_RESAMPLING = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}
# The processors whose defaults are CLIP's; ViT's and others' are not.
_PROCESSORS = ("CLIPImageProcessor", "ChineseCLIPImageProcessor", "CLIPFeatureExtractor", "ChineseCLIPFeatureExtractor")
_MUST = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": False, "use_square_size": False}
_PROCESSOR_OF: dict[Family, tuple[str, str]] = {
    "altclip": ("AltCLIPProcessor", "CLIPImageProcessor"),
    "chinese-clip": ("ChineseCLIPProcessor", "ChineseCLIPImageProcessor"),
    "clip": ("CLIPProcessor", "CLIPImageProcessor"),
}


def read_preprocessing(folder: Path, default: Preprocessing) -> Preprocessing:
    """The preprocessing of pictures that a checkpoint's own files ask for.

    Args:
      folder: with transformers' preprocessor_config.json (the number that it was at first or the dicts of today; or
        processor_config.json, where transformers 5 puts it), or else with open_clip's open_clip_config.json.
      default: where there is none of them.

    Raises:
      JclipError: a file cannot be read, or a field asks for other pixels than jclip makes, bilinear resizing for one;
        the message names the file and the field.
    """
    file = preprocessing_file(folder)
    if file is None:
        return default
    data = read_object(file)
    try:
        if file.name == _OPEN_CLIP:
            return _from_open_clip(data, file)
        return _from_hf(data[_IMAGES] if file.name == _NESTED else data, file)
    except RangeError as error:
        raise JclipError(f"{file}: {error}") from None


def preprocessing_file(folder: Path) -> Path | None:
    """The file that `read_preprocessing` goes by; None where there is none.

    Raises:
      JclipError: a folder has its name.
    """
    for name in (_NESTED, _HF, _OPEN_CLIP):
        if (folder / name).exists() and not (folder / name).is_file():
            raise JclipError(f"{folder / name} is no file: put the checkpoint's own in its place, or take it away")
    nested = folder / _NESTED
    if nested.is_file() and isinstance(read_object(nested).get(_IMAGES), dict):
        return nested
    return next((folder / name for name in (_HF, _OPEN_CLIP) if (folder / name).is_file()), None)


def write_hf_processor(
    folder: Path, family: Family, tokenizer: Tokenizer, preprocessing: Preprocessing, context_length: int
) -> None:
    """Writes what the processors of transformers 4 and 5 load beside a model: preprocessor_config.json, the tokenizer.

    Ids are jclip's, but for a few strings (see `jclip.conversion.hf.hf_tokenizer`); pixels are, within the steps that
    `Preprocessing` tells of.

    Args:
      folder: is there already.
      family: whose processor it becomes.
      tokenizer: of the family's kind.
      preprocessing: of the image tower.
      context_length: what `padding="max_length"` pads to, special tokens included.

    Raises:
      JclipError: the tokenizer is another family's, or the preprocessing trims pictures or turns them upright, which
        transformers cannot, or lays a background under them: whether transformers does, and a white one, depends on its
        version.
    """
    check_hf_processor(family, tokenizer, preprocessing)
    processor, image_processor = _PROCESSOR_OF[family]
    square = {"height": preprocessing.size, "width": preprocessing.size}
    crops = preprocessing.resize == "crop"
    record = {
        "processor_class": processor,
        "image_processor_type": image_processor,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.size} if crops else square,
        "resample": _BICUBIC,
        "do_center_crop": crops,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    (folder / _HF).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_hf_tokenizer(folder, family, tokenizer, context_length, processor)


def check_hf_processor(family: Family, tokenizer: Tokenizer, preprocessing: Preprocessing) -> None:
    """Checks that transformers can make a model's inputs.

    Raises:
      JclipError: as of `write_hf_processor`.
    """
    check_kind(family, tokenizer)
    if preprocessing.trim:
        raise JclipError("transformers cannot trim pictures (make the model with trim=False)")
    if preprocessing.orientation == "apply":
        raise JclipError(
            "transformers' processors do not turn pictures upright (make the model with orientation=ignore)"
        )
    if preprocessing.background is not None:
        raise JclipError(
            "transformers lays no background under transparent pictures (make the model with background=None)"
        )


def _from_hf(data: dict[str, Any], file: Path) -> Preprocessing:
    made_by = data.get("image_processor_type") or data.get("feature_extractor_type") or _PROCESSORS[0]
    if str(made_by).removesuffix("Fast").removesuffix("Pil") not in _PROCESSORS:
        raise JclipError(f"{file} is of a {made_by}: jclip reads {', '.join(_PROCESSORS[:2])}, convert another")
    for field, must in _MUST.items():
        if bool(data.get(field, must)) is not must:
            raise _other_pixels(file, field, data[field], must)
    resample, factor = data.get("resample", _BICUBIC), data.get("rescale_factor", 1 / 255)
    if resample != _BICUBIC:
        raise _other_pixels(file, "resample", f"{resample} ({_RESAMPLING.get(resample, 'unknown')})", "3 (bicubic)")
    if not isinstance(factor, float) or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise _other_pixels(file, "rescale_factor", factor, 1 / 255)
    size, resize = _size_from_hf(data, file)
    return Preprocessing(
        size=size,
        mean=_three(data.get("image_mean", CLIP_MEAN), "image_mean", file),
        std=_three(data.get("image_std", CLIP_STD), "image_std", file),
        resize=resize,
    )


def _size_from_hf(data: dict[str, Any], file: Path) -> tuple[int, Literal["squash", "crop"]]:
    size, crops = data.get("size", {"shortest_edge": 224}), data.get("do_center_crop", True)
    shortest = size.get("shortest_edge") if isinstance(size, dict) else size
    side = _square(size, "size", file) if shortest is None else _pixels(shortest, "size", file)
    if crops and (cropped := _square(data.get("crop_size", 224), "crop_size", file)) != side:
        raise _other_pixels(file, "crop_size", cropped, side)
    if shortest is None or (not crops and not isinstance(size, dict)):
        # The first revision of Chinese-CLIP's files gave a number, cropped nothing, and meant the square.
        return side, "squash"
    if not crops:
        raise _other_pixels(file, "do_center_crop", crops, True)
    return side, "crop"


def _from_open_clip(data: dict[str, Any], file: Path) -> Preprocessing:
    try:
        size = data["model_cfg"]["vision_cfg"]["image_size"]
        asked = data.get("preprocess_cfg") or {}
        interpolation, mode = asked.get("interpolation") or "bicubic", asked.get("resize_mode") or "shortest"
        mean, std = asked.get("mean", CLIP_MEAN), asked.get("std", CLIP_STD)
    except (KeyError, TypeError, AttributeError) as error:
        missing = f"{error} is missing, " if isinstance(error, KeyError) else ""
        raise JclipError(
            f"{file} is no open_clip configuration of a model with pictures: {missing}fetch it again"
        ) from None
    if interpolation not in ("bicubic", "random"):  # "random" is for training; it evaluates bicubic
        raise _other_pixels(file, "interpolation", interpolation, "bicubic")
    if mode not in ("shortest", "squash"):
        raise _other_pixels(file, "resize_mode", mode, "shortest or squash")
    return Preprocessing(
        size=_square(size, "image_size", file),
        mean=_three(mean, "mean", file),
        std=_three(std, "std", file),
        resize="squash" if mode == "squash" else "crop",
    )


def _other_pixels(file: Path, field: str, found: Any, can: Any) -> JclipError:
    return JclipError(f"{file}: {field} is {found}, but jclip's preprocessing has {can} there: {_mend(file)}")


def _mend(file: Path) -> str:
    """open_clip's file cannot be done without: it says more than how pictures are made."""
    return "mend it" if file.name == _OPEN_CLIP else "mend it, or move the file away to have the family's own"


def _square(size: Any, field: str, file: Path) -> int:
    sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else size
    height, width = sides if isinstance(sides, list) and len(sides) == 2 else (sides, sides)
    pixels = _pixels(height, field, file), _pixels(width, field, file)
    if pixels[0] != pixels[1]:
        raise JclipError(
            f"{file}: {field} is {height} x {width}, but jclip's towers take squares: convert another model"
        )
    return pixels[0]


def _pixels(number: Any, field: str, file: Path) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise JclipError(f"{file}: {field} is {number!r}, which is no whole number of pixels: {_mend(file)}")
    return number


def _three(values: Any, field: str, file: Path) -> tuple[float, float, float]:
    numbers = isinstance(values, list | tuple) and len(values) == 3
    if not numbers or not all(isinstance(value, int | float) and abs(value) <= _LARGEST for value in values):
        raise JclipError(f"{file}: {field} is {values!r}, but must be three numbers, one a channel: mend it")
    if "std" in field and min(values) <= 0:
        raise JclipError(f"{file}: {field} is {values!r}, and pictures are divided by it: give numbers above 0")
    red, green, blue = map(float, values)
    return red, green, blue
