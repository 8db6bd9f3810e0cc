"""XLM-R's SentencePiece vocabulary: unigram pieces in fairseq's order (Conneau et al. 2020).

SentencePiece numbers its pieces <unk> 0, <s> 1, </s> 2, then the rest. XLM-R has <s> 0, <pad> 1, </s> 2, <unk> 3, then
the rest, and <mask> at the end. The engine is configured like `XLMRobertaTokenizer` of transformers 5 and gives the
same ids. SentencePiece's own ids differ on 2.8 % of the strings in tests/tokenizers: it normalises combining marks and
control characters differently, breaks ties between pieces differently, and does not recognise <s> or <mask> in a text.

jclip has its own reader of .model files: `sentencepiece_model_pb2` needs protobuf, and cannot be imported beside
transformers' copy of it, which registers the same messages.
"""

import base64
import io
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Engine
from tokenizers.models import Unigram as Model

from jclip.errors import JclipError, unreadable
from jclip.io.json_files import read_bytes, read_object
from jclip.names import TokenizerKind
from jclip.plain import shown
from jclip.tokenizers._charsmap import check_charsmap

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_MASK = "<mask>"
_SPACE = "▁"  # SentencePiece's space
_FILE = "tokenizer.json"
# Written beside the charsmap by versions of transformers; redundant with the pre-tokenizer.
_HARMLESS_NORMALIZERS = ("Precompiled", "Replace", "Strip")
_UNIGRAM, _USER_DEFINED = 1, 4  # sentencepiece_model.proto: type of a model, and type of a piece


@dataclass(frozen=True)
class UnigramPieces:
    """Contents of a vocabulary file.

    Attributes:
      scored: (piece, score) in the order of the ids, in XLM-R's layout.
      charsmap: SentencePiece's precompiled normalisation map.
      words: tokens that are matched before the text is split, besides the special ones.
    """

    scored: list[tuple[str, float]]
    charsmap: bytes = b""
    words: tuple[AddedToken, ...] = ()


class Unigram:
    """XLM-R vocabulary."""

    kind: TokenizerKind = "xlmr"

    def __init__(self, pieces: UnigramPieces, name: str = "the vocabulary"):
        first = [piece for piece, _ in pieces.scored[:4]]
        if first != list(_SPECIAL):
            raise JclipError(f"{name} begins with {first}, not with {', '.join(_SPECIAL)}: it is not in XLM-R's layout")
        counts = Counter(piece for piece, _ in pieces.scored)
        twice = next((piece for piece, count in counts.items() if count > 1), None)
        if twice is not None:
            raise JclipError(f"{name} has the piece {shown(repr(twice))} twice, and ids must be unique: correct it")
        odd = next((piece for piece, score in pieces.scored if not math.isfinite(score)), None)
        if odd is not None:
            raise JclipError(f"{name}: the score of {shown(repr(odd))} is not a finite number: fetch it again")
        self._engine = _engine(pieces)
        self.begin, self.pad, self.end = 0, 1, 2

    @classmethod
    def read(cls, file: Path) -> "Unigram":
        """Reads tokenizer.json, or SentencePiece's own .model file."""
        what = "as a tokenizer of XLM-R's kind"
        try:
            if file.suffix == ".model":
                return cls.from_model(read_bytes(file, what), str(file))
            data = read_object(file, what)
            vocabulary = cls(_from_json(data, str(file)), str(file))
            for token in data.get("added_tokens") or []:
                if vocabulary._engine.token_to_id(token["content"]) != token["id"]:
                    raise ValueError(f"its added token {token['content']!r} does not follow the others")
        except JclipError:
            raise
        except Exception as error:  # the engine raises bare Exception
            known = isinstance(error, ValueError | LookupError | TypeError | AttributeError)
            raise unreadable(file, error if known else ValueError(str(error)), what) from None
        return vocabulary

    @classmethod
    def from_model(cls, data: bytes, name: str = "the vocabulary") -> "Unigram":
        """Returns the vocabulary of a SentencePiece model's bytes."""
        return cls(_from_model(data, name), name)

    @cached_property
    def tokens(self) -> list[str]:
        """Every token, by its id."""
        ids = self._engine.get_vocab(with_added_tokens=True)
        return sorted(ids, key=ids.__getitem__)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without <s> and </s> around it."""
        return [each.ids for each in self._engine.encode_batch(list(texts), add_special_tokens=False)]

    def engine_json(self) -> str:
        """Returns the engine as a tokenizer.json."""
        return self._engine.to_str()

    def complete(self) -> Engine:
        """Returns a copy of the engine, which is complete."""
        return Engine.from_str(self._engine.to_str())

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json."""
        (folder / _FILE).write_text(self.engine_json(), encoding="utf-8")


def _engine(pieces: UnigramPieces) -> Engine:
    engine = Engine(Model(pieces.scored, unk_id=3, byte_fallback=False))
    if pieces.charsmap:
        engine.normalizer = normalizers.Precompiled(pieces.charsmap)
    spaces = {"replacement": _SPACE, "prepend_scheme": "always"}
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**spaces)]
    engine.pre_tokenizer = pre_tokenizers.Sequence(splits)
    engine.decoder = decoders.Metaspace(**spaces)
    engine.add_tokens(list(pieces.words))
    engine.add_special_tokens([*_SPECIAL, _MASK])
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return engine


def train_model(texts: Iterable[str], vocab_size: int, character_coverage: float) -> bytes:
    """Trains a SentencePiece unigram model that has at most `vocab_size` ids in XLM-R's layout. Returns its bytes.

    It is deterministic, because the texts are sorted and one thread trains.
    """
    import sentencepiece

    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sorted(texts)),
            model_writer=buffer,
            model_type="unigram",
            vocab_size=vocab_size - 2,  # <pad> and <mask> are XLM-R's own
            character_coverage=character_coverage,
            normalization_rule_name="nmt_nfkc",
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).rpartition("] ")[2].strip() or "there is no text"
        raise JclipError(f"no unigram vocabulary of {vocab_size} can be trained: {reason}") from None
    return buffer.getvalue()


def _from_json(data: Any, name: str) -> UnigramPieces:
    """Returns the pieces of a tokenizer.json."""
    charsmap = b""
    normalizer = data.get("normalizer") or {}
    for step in normalizer.get("normalizers", [normalizer] if normalizer else []):
        if step["type"] not in _HARMLESS_NORMALIZERS:
            raise JclipError(f"{name} normalises text by {step['type']}, which XLM-R's does not: it is another model's")
        charsmap = base64.b64decode(step.get("precompiled_charsmap") or "", validate=True) or charsmap
    check_charsmap(charsmap)
    added = sorted(data.get("added_tokens") or [], key=lambda token: token["id"])
    words = [
        AddedToken(**{key: value for key, value in token.items() if key != "id"})
        for token in added
        if token["content"] not in (*_SPECIAL, _MASK)
    ]
    vocab = data["model"]["vocab"]
    if not isinstance(vocab, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in vocab):
        raise ValueError("its vocab is not a list of pieces with their scores")
    return UnigramPieces([(piece, score) for piece, score in vocab], charsmap, tuple(words))


def _from_model(data: bytes, name: str) -> UnigramPieces:
    """Returns the pieces of a SentencePiece model.

    Fields of sentencepiece_model.proto: 1 pieces (1 text, 2 score, 3 type); 2 trainer (3 model type); 3 normalizer
    (2 map).
    """
    pieces: list[tuple[str, float]] = []
    words: list[AddedToken] = []
    charsmap, kind = b"", _UNIGRAM
    try:
        for number, value in _fields(data):
            if number == 1:
                piece = dict(_fields(value))
                text = piece[1].decode("utf-8")
                pieces.append((text, struct.unpack("<f", piece.get(2, b"\0" * 4))[0]))
                if piece.get(3) == _USER_DEFINED:
                    words.append(AddedToken(text, normalized=False))
            elif number == 2:
                kind = dict(_fields(value)).get(3, _UNIGRAM)
            elif number == 3:
                charsmap = dict(_fields(value)).get(2, b"")
                check_charsmap(charsmap)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise JclipError(f"{name} is not a SentencePiece model, or damaged ({error}): fetch it again") from None
    if [piece for piece, _ in pieces[:3]] != ["<unk>", "<s>", "</s>"] or kind != _UNIGRAM:
        raise JclipError(f"{name} is not a SentencePiece unigram model that begins with <unk>, <s>, </s>: give XLM-R's")
    scored = [(token, 0.0) for token in _SPECIAL] + pieces[3:] + [(_MASK, 0.0)]
    return UnigramPieces(scored, charsmap, tuple(words))


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Yields the fields of a protobuf message: number, and value as an int (varint) or as raw bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(data):
            raise ValueError("it ends too early")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 70:
            raise ValueError("a number of more than 64 bits")
        if byte < 128:
            return value, at
