"""Reads and writes the preprocessing of images in the files of transformers and open_clip."""

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jclip.conversion.hf.config import HfModel
from jclip.conversion.hf.tokenizer import check_kind, write_hf_tokenizer
from jclip.errors import JclipError
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.io.json_files import read_object
from jclip.ranges import RangeError
from jclip.tokenizers.text import Tokenizer

_NESTED, _HF, _OPEN_CLIP = "processor_config.json", "preprocessor_config.json", "open_clip_config.json"
_IMAGES = "image_processor"
"""Field of transformers 5's processor_config.json that holds the image processor's settings."""
_LARGEST = float(np.finfo(np.float32).max)
_BICUBIC = 3  # in Pillow
_RESAMPLING = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}
# Image processors with CLIP's defaults.
_PROCESSORS = ("CLIPImageProcessor", "ChineseCLIPImageProcessor", "CLIPFeatureExtractor", "ChineseCLIPFeatureExtractor")
_MUST = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": False, "use_square_size": False}


def read_preprocessing(folder: Path, default: Preprocessing) -> Preprocessing:
    """Returns the preprocessing that transformers' or open_clip's files in a folder describe; `default` without files.

    Raises JclipError if a file cannot be read, or requires something that jclip lacks, such as bilinear resizing.
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
    """Returns the file that `read_preprocessing` reads, or None. Raises JclipError if its name is that of a folder."""
    for name in (_NESTED, _HF, _OPEN_CLIP):
        if (folder / name).exists() and not (folder / name).is_file():
            raise JclipError(f"{folder / name} is not a file: replace it with the checkpoint's own, or move it away")
    nested = folder / _NESTED
    if nested.is_file() and isinstance(read_object(nested).get(_IMAGES), dict):
        return nested
    return next((folder / name for name in (_HF, _OPEN_CLIP) if (folder / name).is_file()), None)


def write_hf_processor(
    folder: Path, model: HfModel, tokenizer: Tokenizer, preprocessing: Preprocessing, context_length: int
) -> None:
    """Writes preprocessor_config.json and the tokenizer for the processors of transformers 4 and 5.

    Ids equal jclip's except for a few strings (see `jclip.conversion.hf.tokenizer`); pixels differ slightly (see
    `Preprocessing`). `padding="max_length"` pads to `context_length`, special tokens included. Raises JclipError if
    `check_hf_processor` refuses the tokenizer or the preprocessing.
    """
    check_hf_processor(model, tokenizer, preprocessing)
    square = {"height": preprocessing.size, "width": preprocessing.size}
    crops = preprocessing.resize == "crop"
    record = {
        "processor_class": f"{model.name}Processor",
        "image_processor_type": model.image_processor,
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
    write_hf_tokenizer(folder, model, tokenizer, context_length)


def check_hf_processor(model: HfModel, tokenizer: Tokenizer, preprocessing: Preprocessing) -> None:
    """Checks that transformers' processors can prepare a model's inputs.

    Raises JclipError if the tokenizer is of another model's kind, or the preprocessing trims images, turns them
    upright, or fills transparent pixels. (Some versions of transformers fill them.)
    """
    check_kind(model, tokenizer)
    if preprocessing.trim:
        raise JclipError("transformers cannot trim images (train with trim=False)")
    if preprocessing.orientation == "apply":
        raise JclipError("transformers cannot turn images upright (train with orientation=ignore)")
    if preprocessing.background is not None:
        raise JclipError("transformers does not fill transparent pixels with a background (train with background=None)")


def _from_hf(data: dict[str, Any], file: Path) -> Preprocessing:
    made_by = data.get("image_processor_type") or data.get("feature_extractor_type") or _PROCESSORS[0]
    if str(made_by).removesuffix("Fast").removesuffix("Pil") not in _PROCESSORS:
        raise JclipError(f"{file} is for a {made_by}; jclip reads {', '.join(_PROCESSORS[:2])}: convert another model")
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
        # The first revision of Chinese-CLIP's files has one number without cropping, which means a square.
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
        raise JclipError(f"{file} is not open_clip's configuration of a model: {missing}fetch it again") from None
    if interpolation not in ("bicubic", "random"):  # "random" is for training; evaluation is bicubic
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
    return JclipError(f"{file}: {field} is {found}, but jclip supports {can}: {_remedy(file)}")


def _remedy(file: Path) -> str:
    # open_clip's file describes the model too, so it cannot be omitted.
    return "correct it" if file.name == _OPEN_CLIP else "correct it, or move the file away to use the family's default"


def _square(size: Any, field: str, file: Path) -> int:
    sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else size
    height, width = sides if isinstance(sides, list) and len(sides) == 2 else (sides, sides)
    pixels = _pixels(height, field, file), _pixels(width, field, file)
    if pixels[0] != pixels[1]:
        raise JclipError(f"{file}: {field} is {height} x {width}, but jclip supports squares: convert another model")
    return pixels[0]


def _pixels(number: Any, field: str, file: Path) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise JclipError(f"{file}: {field} is {number!r}, but must be a whole number of pixels: {_remedy(file)}")
    return number


def _three(values: Any, field: str, file: Path) -> tuple[float, float, float]:
    numbers = isinstance(values, list | tuple) and len(values) == 3
    if not numbers or not all(isinstance(value, int | float) and abs(value) <= _LARGEST for value in values):
        raise JclipError(f"{file}: {field} is {values!r}, but must be three numbers, one for each channel: correct it")
    if "std" in field and min(values) <= 0:
        raise JclipError(f"{file}: {field} is {values!r}, but must be greater than 0: correct it")
    red, green, blue = map(float, values)
    return red, green, blue
