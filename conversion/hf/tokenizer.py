"""Writes a tokenizer for transformers, so that its ids equal jclip's.

transformers 5 rebuilds `BertTokenizer` and `CLIPTokenizer` from their vocabularies and ignores the rest of
tokenizer.json. The results differ from cn_clip (every curly quote is unknown) and from open_clip (quotes, entities,
full-width letters). The kinds wordpiece and clip_bpe are therefore written as `PreTrainedTokenizerFast`, which uses all
of tokenizer.json. Share of 12,000 test strings whose ids differ, measured with transformers 5.24 and 4.57:

                as BertTokenizer, CLIPTokenizer    as written here
    wordpiece    8.1 %                             none
    clip_bpe    27.3 %                             0.09 %   mojibake that ftfy repairs, rare entities
    bert, xlmr                                     none

A Chinese-CLIP that was trained with BERT's own rules (kind bert) is written as `BertTokenizer`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers import processors

from jclip.conversion.hf.config import HfModel
from jclip.errors import JclipError
from jclip.io.json_files import read_object
from jclip.tokenizers.text import Tokenizer

_JSON, _SETTINGS, _SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_OWN_FILES = ("vocab.txt", "merges.txt")
_MASKED = ["input_ids", "attention_mask"]
_TYPED = ["input_ids", "token_type_ids", "attention_mask"]
_XLMR_TOKENS = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_BERT_TOKENS = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
_CLIP_TOKENS = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def write_hf_tokenizer(folder: Path, model: HfModel, tokenizer: Tokenizer, context_length: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, and the kind's vocabulary files.

    `padding="max_length"` pads to `context_length`. Raises JclipError if the tokenizer is of another model's kind.
    """
    check_kind(model, tokenizer)
    kind = tokenizer.kind
    with TemporaryDirectory() as place:
        ours = Path(place) / "tokenizer"
        tokenizer.save(ours)
        said = read_object(ours / _SETTINGS) if (ours / _SETTINGS).is_file() else {}
        for name in _OWN_FILES:
            if (ours / name).is_file():
                shutil.copyfile(ours / name, folder / name)
    settings: dict[str, Any] = {"model_max_length": context_length}
    if kind in ("xlmr", "bert"):
        (folder / _JSON).write_text(tokenizer.engine_json(), encoding="utf-8")
    if kind == "xlmr":
        settings |= {"tokenizer_class": "XLMRobertaTokenizer", "model_input_names": _MASKED, **_XLMR_TOKENS}
    elif kind == "bert":
        special = _bert_tokens(tokenizer.tokens)
        settings |= said | {"tokenizer_class": "BertTokenizer", "model_input_names": _TYPED, **special}
    elif kind == "wordpiece":
        settings |= _write_wordpiece(folder, tokenizer, not said.get("do_lower_case", True))
    else:
        settings |= _write_clip(folder, tokenizer)
    _write_json(folder / _SPECIAL, {name: token for name, token in settings.items() if name.endswith("_token")})
    _write_json(folder / _SETTINGS, {"processor_class": f"{model.name}Processor", **settings})


def check_kind(model: HfModel, tokenizer: Tokenizer) -> None:
    """Raises JclipError if a tokenizer is not of a kind that the model has."""
    kind, kinds = tokenizer.kind, model.tokenizers
    if kind not in kinds:
        raise JclipError(
            f"{model.name}Model has a {kinds[0]} tokenizer, this one is {kind}: use the family of the tokenizer"
        )


def _write_wordpiece(folder: Path, tokenizer: Tokenizer, cased: bool) -> dict[str, Any]:
    special = _bert_tokens(tokenizer.tokens)
    _write_engine(folder, tokenizer.complete_engine(), special, begin="[CLS]", end="[SEP]")
    return _verbatim(special) | {"model_input_names": _TYPED, "do_lower_case": not cased}


def _bert_tokens(tokens: list[str]) -> dict[str, str]:
    return {name: token for name, token in _BERT_TOKENS.items() if token in tokens}


def _write_clip(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    tokens = tokenizer.tokens
    ids = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False) + "\n", encoding="utf-8")
    # CLIP pads with id 0, an exclamation mark inside a word. Texts do not match it as a special token: see _verbatim.
    special = {**_CLIP_TOKENS, "pad_token": tokens[0]}
    _write_engine(folder, tokenizer.complete_engine(), special, begin=special["bos_token"], end=special["eos_token"])
    return _verbatim(special) | {"model_input_names": _MASKED}


def _verbatim(special: Mapping[str, str]) -> dict[str, Any]:
    # split_special_tokens: special tokens inside a text are split like other text.
    return {"tokenizer_class": "PreTrainedTokenizerFast", "split_special_tokens": True, **special}


def _write_engine(folder: Path, engine: Engine, special: Mapping[str, str], begin: str, end: str) -> None:
    engine.add_special_tokens(list(dict.fromkeys(special.values())))
    engine.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, engine.token_to_id(token)) for token in (begin, end)],
    )
    (folder / _JSON).write_text(engine.to_str(pretty=True), encoding="utf-8")  # `save` accepts only UTF-8 paths


def _write_json(file: Path, record: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
