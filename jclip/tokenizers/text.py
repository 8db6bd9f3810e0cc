"""Tokenizer: strings to token ids, by the vocabulary and the rules of each text tower.

    kind       used by             ids of a sentence A                     pad
    wordpiece  Chinese-CLIP        [CLS] A [SEP]                           0   (A split by cn_clip's rules)
    bert       BERT                [CLS] A [SEP]                           0   (A split by BERT's own rules)
    xlmr       AltCLIP             <s> A </s>                              1
    clip_bpe   CLIP, the teacher   <|startoftext|> A <|endoftext|>         0   (<|endoftext|> is the largest id)

Truncation shortens A and keeps the token after it, because CLIP's text tower pools at that token.

Axes: n sentences, l tokens.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Engine

from jclip.errors import JclipError, unreadable
from jclip.io.files import whole_folder
from jclip.io.json_files import entry, read_object
from jclip.names import TokenizerKind
from jclip.plain import shown
from jclip.tokenizers import _clip_bpe, _unigram
from jclip.tokenizers._bert import Bert
from jclip.tokenizers._bert_files import BertPieces
from jclip.tokenizers._clip_bpe import ClipBpe
from jclip.tokenizers._unigram import Unigram
from jclip.tokenizers._wordpiece import WordPiece
from jclip.tokenizers.vocabulary import Vocabulary

_DESCRIPTOR, _FORMAT = "jclip_tokenizer.json", 1


class Tokenizer:
    """Callable that turns strings into padded ids."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary

    @property
    def kind(self) -> TokenizerKind:
        """Name of the rules: "wordpiece", "bert", "xlmr" or "clip_bpe"."""
        return self._vocabulary.kind

    @property
    def pad_id(self) -> int:
        """Id of the padding token, which the towers mask."""
        return self._vocabulary.pad

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return len(self._vocabulary.tokens)

    @property
    def tokens(self) -> list[str]:
        """Every token by its id, as the vocabulary spells it: "##ing", "▁the", "ing</w>"."""
        return list(self._vocabulary.tokens)

    def engine_json(self) -> str:
        """Returns the engine of the `tokenizers` library as a tokenizer.json.

        BERT's and XLM-R's are complete. CLIP's expects cleaned text, and Chinese-CLIP's expects words.
        """
        return self._vocabulary.engine_json()

    def complete_engine(self) -> Engine:
        """Returns an engine of the `tokenizers` library with the rules of `encode`; `complete_json` says how far."""
        return self._vocabulary.complete()

    def complete_json(self, context_length: int) -> str:
        """Returns a tokenizer.json that gives the same ids as `encode`, padded to the longest text of a batch.

        CLIP's differs on texts that ftfy repairs, on rare entities, and on <start_of_text> written in a text, because
        the `tokenizers` library cannot express these.
        """
        engine = self.complete_engine()
        engine.enable_truncation(context_length)
        engine.enable_padding(pad_id=self.pad_id, pad_token=self.tokens[self.pad_id])
        return engine.to_str()

    def encode(self, texts: Sequence[str], context_length: int) -> list[list[int]]:
        """Returns the ids of each text with its special tokens, truncated to `context_length`, not padded.

        Raises JclipError if `context_length` is below 3, `texts` is a single string, or a text is not a valid string.
        """
        _check_texts(texts)
        if context_length < 3:
            raise JclipError(f"a context length of {context_length} leaves no room for a word: give it 3 or more")
        v, room = self._vocabulary, context_length - 2
        return [[v.begin, *ids[:room], v.end] for ids in v.encode(texts)]

    def __call__(self, texts: Sequence[str], context_length: int) -> np.ndarray:
        """Returns ids, int32 (n, context_length), padded with `pad_id`."""
        return pad(self.encode(texts, context_length), context_length, self.pad_id)

    def fingerprint(self) -> str:
        """Returns a short hash of the vocabulary and its behaviour."""
        probe = self.encode(["A naïve PROBE, 一只猫"], 64)  # for behaviour such as lower-casing
        found = repr((self.kind, self.tokens, probe))
        return hashlib.blake2b(found.encode(), digest_size=8).hexdigest()

    def as_kind(self, kind: TokenizerKind) -> "Tokenizer":
        """Returns the same vocabulary with the rules of another kind. Only "bert" and "wordpiece" share a vocabulary.

        Raises JclipError if the kind has another vocabulary, or cn_clip's rules do not support its settings.
        """
        if kind == self.kind:
            return self
        if kind not in _BERT_KINDS or not isinstance(self._vocabulary, Bert | WordPiece):
            raise JclipError(f"a {self.kind} vocabulary does not fit kind {kind}: load another")
        return Tokenizer((Bert if kind == "bert" else WordPiece)(self._vocabulary.pieces))

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, which `load_tokenizer` reads. Replaces the folder."""
        with whole_folder(folder) as partial:
            self._vocabulary.save(partial)
            record = {"format": _FORMAT, "kind": self.kind}
            (partial / _DESCRIPTOR).write_text(json.dumps(record) + "\n", encoding="utf-8")


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise JclipError(f"a tokenizer takes a list of texts, not {type(texts).__name__}: put them into brackets")
    try:
        "".join(texts).encode()
    except (TypeError, UnicodeEncodeError):
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                kind = "None" if text is None else f"of type {type(text).__name__}"
                raise JclipError(f"text {number} is {kind}, but must be a string") from None
            try:
                text.encode()
            except UnicodeEncodeError:
                raise JclipError(f"text {number} has a lone surrogate, {text[:40]!a}: decode it again") from None


def pad(sentences: Sequence[Sequence[int]], length: int, pad_id: int) -> np.ndarray:
    """Returns ids padded with `pad_id`, int32 (n, length). No sentence may be longer than `length`."""
    ids_nl = np.full((len(sentences), length), pad_id, np.int32)
    for row, ids in zip(ids_nl, sentences, strict=True):
        row[: len(ids)] = ids
    return ids_nl


def load_tokenizer(path: Path | str, kind: TokenizerKind | None = None) -> Tokenizer:
    """Reads a tokenizer. Raises JclipError if it is missing, damaged or has another model's layout.

    Args:
      path: a folder that `Tokenizer.save` wrote; or a published vocabulary file, or its folder: tokenizer.json, BERT's
        vocab.txt, XLM-R's sentencepiece.bpe.model, CLIP's merges.txt or bpe_simple_vocab_16e6.txt.gz. If a folder has
        several, the first in this order is read, as transformers does. A tokenizer_config.json beside BERT's
        vocabulary decides on case, accents and Chinese characters.
      kind: "bert" or "wordpiece": rules for a BERT vocabulary. None: the saved rules, or Chinese-CLIP's for a published
        file. Ignored for any other vocabulary.
    """
    path = Path(path)
    file = vocabulary_file(path)
    found = _kind_in(path / _DESCRIPTOR) if (path / _DESCRIPTOR).is_file() else _kind_of(file)
    if kind in _BERT_KINDS and found in _BERT_KINDS:
        found = kind
    return Tokenizer(_READERS[found](file))


def vocabulary_file(path: Path) -> Path:
    """Returns the vocabulary file that `load_tokenizer` reads at a path. Raises JclipError if it does not exist."""
    file = path / _file_of(path) if path.is_dir() else path
    if not file.is_file():
        raise JclipError(f"there is no tokenizer at {path}: check the path")
    return file


def wordpiece(vocab: Path | Sequence[str]) -> Tokenizer:
    """Returns Chinese-CLIP's tokenizer for a vocab.txt of BERT, or for its lines."""
    return Tokenizer(WordPiece(BertPieces.read(vocab) if isinstance(vocab, Path) else BertPieces(vocab)))


def train_unigram(texts: Iterable[str], vocab_size: int, *, character_coverage: float = 1.0) -> Tokenizer:
    """Trains a SentencePiece unigram vocabulary in XLM-R's layout: <s> 0, <pad> 1, </s> 2, <unk> 3. Deterministic.

    Raises JclipError if there are no texts, or `vocab_size` does not hold their characters. The message quotes
    SentencePiece, whose sizes exclude <pad> and <mask>.

    Args:
      texts: sentences, in any order.
      vocab_size: maximum number of ids.
      character_coverage: share of all characters in the texts, by occurrence, that the pieces cover; the rest become
        <unk>.
    """
    return Tokenizer(Unigram.from_model(_unigram.train_model(texts, vocab_size, character_coverage)))


def train_clip_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-pair vocabulary of at most `vocab_size` ids in CLIP's layout. Deterministic.

    Raises JclipError if `vocab_size` is too small for the bytes; the message gives the minimum.
    """
    return Tokenizer(ClipBpe(_clip_bpe.train_merges(texts, vocab_size)))


_ENDINGS: dict[str, TokenizerKind | None] = {
    "tokenizer.json": None,  # any kind
    "vocab.txt": "wordpiece",
    ".model": "xlmr",
    "merges.txt": "clip_bpe",
    ".txt.gz": "clip_bpe",
}
_BERT_KINDS: tuple[TokenizerKind, ...] = ("wordpiece", "bert")
_READERS: dict[TokenizerKind, Callable[[Path], Vocabulary]] = {
    "wordpiece": WordPiece.read,
    "bert": Bert.read,
    "xlmr": Unigram.read,
    "clip_bpe": ClipBpe.read,
}
_MODELS: dict[str, TokenizerKind] = {"WordPiece": "wordpiece", "Unigram": "xlmr", "BPE": "clip_bpe"}


def _kind_of(file: Path) -> TokenizerKind:
    for ending, kind in _ENDINGS.items():
        if file.name.endswith(ending):
            return kind or _kind_of_json(file)
    raise JclipError(f"{file} is not a known vocabulary: expected a name that ends in one of {', '.join(_ENDINGS)}")


def _kind_of_json(file: Path) -> TokenizerKind:
    what = "as a tokenizer.json"
    model = read_object(file, what).get("model")
    if not isinstance(model, dict):
        raise unreadable(file, KeyError("model"), what)
    # The oldest files do not name their model.
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram" if "unk_id" in model else "WordPiece")
    if not isinstance(kind, str) or kind not in _MODELS:
        raise JclipError(f"{file} holds a {shown(str(kind))} tokenizer: jclip reads {', '.join(_MODELS)}")
    return _MODELS[kind]


def _file_of(folder: Path) -> str:
    for ending in _ENDINGS:
        for file in sorted(folder.iterdir()):
            if file.name.endswith(ending) and file.name != _DESCRIPTOR:
                return file.name
    raise JclipError(f"{folder} holds no tokenizer: expected a file that ends in one of {', '.join(_ENDINGS)}")


def _kind_in(descriptor: Path) -> TokenizerKind:
    record = read_object(descriptor)
    kind, version = entry(record, "kind", str, descriptor), entry(record, "format", int, descriptor)
    if version != _FORMAT or kind not in _READERS:
        raise JclipError(
            f"{descriptor} says kind {shown(repr(kind))}, format {version}: use the version of jclip that wrote it"
        )
    return kind
