"""XLM-R's SentencePiece vocabulary: unigram pieces in fairseq's order (Conneau et al. 2020).

SentencePiece numbers its pieces <unk> 0, <s> 1, </s> 2, then the rest; XLM-R has <s> 0, <pad> 1, </s> 2, <unk> 3, then
the rest, and <mask> at the end. Letter case is kept. The engine is that of `transformers`' fast tokenizers; it differs
from SentencePiece's own in rare combining marks and invisible characters.
"""

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine
from tokenizers.models import Unigram as Model

from jclip.data.text import Kind
from jclip.errors import JclipError

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_SPACE = "▁"  # how SentencePiece writes a space
_FILE = "tokenizer.json"


class Unigram:
    """The vocabulary, run by the `tokenizers` engine."""

    kind: Kind = "xlmr"

    def __init__(self, engine: Engine, name: str = "the vocabulary"):
        self._engine = engine
        engine.no_padding()
        engine.no_truncation()
        ids = [engine.token_to_id(token) for token in _SPECIAL]
        if ids != [0, 1, 2, 3]:
            raise JclipError(f"{name} numbers {', '.join(_SPECIAL)} {ids}, not 0 to 3: it is not in XLM-R's layout")
        self.begin, self.pad, self.end = ids[:3]
        self.size = engine.get_vocab_size(with_added_tokens=True)

    @classmethod
    def read(cls, file: Path) -> "Unigram":
        """From tokenizer.json, or from SentencePiece's own .model file."""
        try:
            if file.suffix == ".model":
                return cls.from_model(file.read_bytes(), str(file))
            return cls(Engine.from_str(file.read_text(encoding="utf-8")), str(file))
        except JclipError:
            raise
        except Exception as error:  # the engine raises bare Exception
            raise JclipError(f"{file} cannot be read: {error}") from None

    @classmethod
    def from_model(cls, data: bytes, name: str = "the vocabulary") -> "Unigram":
        """From the bytes of a SentencePiece model."""
        model = _parse(data, name)
        vocab = [(token, 0.0) for token in _SPECIAL] + model.pieces[3:] + [("<mask>", 0.0)]
        engine = Engine(Model(vocab, unk_id=3, byte_fallback=False))
        steps = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
        engine.normalizer = normalizers.Sequence(steps)
        engine.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
        return cls(engine, name)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without <s> and </s>."""
        return [each.ids for each in self._engine.encode_batch(list(texts), add_special_tokens=False)]

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json."""
        (folder / _FILE).write_text(self._engine.to_str(), encoding="utf-8")


def train(texts: Iterable[str], vocab_size: int, character_coverage: float) -> bytes:
    """A SentencePiece unigram model whose XLM-R layout has at most `vocab_size` ids.

    One thread, and the texts sorted, so that it depends on nothing else.
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


@dataclass(frozen=True)
class _Parsed:
    pieces: list[tuple[str, float]]
    charsmap: bytes


def _parse(data: bytes, name: str) -> _Parsed:
    """What is needed of sentencepiece_model.proto: pieces are field 1 (text 1, score 2), the normalizer's map 3.2."""
    pieces, charsmap = [], b""
    try:
        for number, value in _fields(data):
            if number == 1:
                piece = dict(_fields(value))
                pieces.append((piece[1].decode("utf-8"), struct.unpack("<f", piece.get(2, b"\0" * 4))[0]))
            elif number == 3:
                charsmap = dict(_fields(value)).get(2, b"")
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise JclipError(f"{name} is not a SentencePiece model, or damaged ({error})") from None
    if [piece for piece, _ in pieces[:3]] != ["<unk>", "<s>", "</s>"]:
        raise JclipError(
            f"{name} does not begin with <unk>, <s>, </s>: it is not a SentencePiece model of XLM-R's kind"
        )
    return _Parsed(pieces, charsmap)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message: number and raw value; varints, which nothing here needs, are empty."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            _, at = _varint(data, at)
            yield number, b""
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
        if byte < 128:
            return value, at
