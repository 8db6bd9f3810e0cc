"""Strings to token ids: the vocabularies of the papers behind one class.

    kind       who                 ids of a sentence A                     pad
    wordpiece  Chinese-CLIP        [CLS] A [SEP]                           0
    bert       BERT by itself      [CLS] A [SEP]                           0   (A cut by its own rules, not cn_clip's)
    xlmr       AltCLIP             <s> A </s>                              1
    clip_bpe   CLIP, the teacher   <|startoftext|> A <|endoftext|>         0   (<|endoftext|> is the largest id)

A sentence that is too long is cut in A: the token at its end stays, for CLIP's tower reads its state there.

Axes: n sentences, l tokens.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from jclip.errors import JclipError, unreadable
from jclip.io.files import whole_folder
from jclip.io.json_files import entry, read_object
from jclip.plain import shown

Kind = Literal["wordpiece", "bert", "xlmr", "clip_bpe"]

_DESCRIPTOR, _FORMAT = "jclip_tokenizer.json", 1


class Vocabulary(Protocol):
    """What the kinds have in common; private to this module's siblings."""

    kind: Kind
    begin: int
    end: int
    pad: int

    @property
    def tokens(self) -> Sequence[str]:
        """Every token, by its id."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without the special tokens around it."""

    def engine_json(self) -> str:
        """The engine of the `tokenizers` library as a tokenizer.json: it cuts text that is cleaned already."""

    def save(self, folder: Path) -> None:
        """Writes the vocabulary's files into an existing folder."""


class Tokenizer:
    """Callable: strings in, padded ids out."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary

    @property
    def kind(self) -> Kind:
        """Which of them."""
        return self._vocabulary.kind

    @property
    def pad_id(self) -> int:
        """The id that fills up short sentences; the towers mask it."""
        return self._vocabulary.pad

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return len(self._vocabulary.tokens)

    @property
    def tokens(self) -> list[str]:
        """Every token by its id, as its makers spell it: "##ing", "▁the", "ing</w>"."""
        return list(self._vocabulary.tokens)

    def engine_json(self) -> str:
        """The engine of the `tokenizers` library as a tokenizer.json.

        BERT's and XLM-R's are complete. CLIP's expects text that is cleaned, and Chinese-CLIP's, cut into words.
        """
        return self._vocabulary.engine_json()

    def encode(self, texts: Sequence[str], context_length: int) -> list[list[int]]:
        """Ids of each text with its special tokens, cut to `context_length`, not padded.

        Raises:
          JclipError: no room for a token between the special ones; a string alone, which would be taken letter by
            letter; or a text that is not a string, or holds half a character, with its number from 0.
        """
        _check_texts(texts)
        if context_length < 3:
            raise JclipError(f"a context length of {context_length} leaves no room for a word: give it 3 or more")
        v, room = self._vocabulary, context_length - 2
        return [[v.begin, *ids[:room], v.end] for ids in v.encode(texts)]

    def __call__(self, texts: Sequence[str], context_length: int) -> np.ndarray:
        """int32 (n, context_length), padded with `pad_id`."""
        return pad(self.encode(texts, context_length), context_length, self.pad_id)

    def as_kind(self, kind: Kind) -> "Tokenizer":
        """The same vocabulary by the rules of another kind: "bert" and "wordpiece" share theirs.

        Raises:
          JclipError: that kind has another vocabulary; or cn_clip's rules cannot do what BERT's settings ask for.
        """
        from jclip.tokenizers._bert import Bert
        from jclip.tokenizers._wordpiece import WordPiece

        if kind == self.kind:
            return self
        if kind not in _OF_BERT or not isinstance(self._vocabulary, Bert | WordPiece):
            raise JclipError(f"a {self.kind} vocabulary is none of kind {kind}: load another")
        return Tokenizer((Bert if kind == "bert" else WordPiece)(self._vocabulary.pieces))

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, which `load_tokenizer` reads; whatever was in the folder goes."""
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
                raise JclipError(f"text {number} holds half a character, {text[:40]!a}: decode it anew") from None


def pad(sentences: Sequence[Sequence[int]], length: int, pad_id: int) -> np.ndarray:
    """Ids as int32 (n, length); no sentence may be longer."""
    ids_nl = np.full((len(sentences), length), pad_id, np.int32)
    for row, ids in zip(ids_nl, sentences, strict=True):
        row[: len(ids)] = ids
    return ids_nl


def load_tokenizer(path: Path | str, kind: Kind | None = None) -> Tokenizer:
    """Reads a tokenizer.

    Args:
      path: a folder that `Tokenizer.save` wrote, or a file (or a folder with the file) as its makers ship it: any
        tokenizer.json, BERT's vocab.txt, XLM-R's sentencepiece.bpe.model, CLIP's bpe_simple_vocab_16e6.txt.gz or
        merges.txt. Of several in a folder the first in this order counts, as it does for transformers. A
        tokenizer_config.json beside BERT's says whether letter case is kept.
      kind: "bert" or "wordpiece": by whose rules BERT's vocabulary, if it is one, cuts a text. None: as it was saved,
        and in its makers' files by Chinese-CLIP's. Any other vocabulary has one kind, and stays of it.

    Raises:
      JclipError: nothing of that kind is there, or it is damaged, or of another model's layout.
    """
    path = Path(path)
    file = vocabulary_file(path)
    found = _kind_in(path / _DESCRIPTOR) if (path / _DESCRIPTOR).is_file() else _kind_of(file)
    if kind in _OF_BERT and found in _OF_BERT:
        found = kind
    return Tokenizer(_makers()[found](file))


def vocabulary_file(path: Path) -> Path:
    """The file with the tokens that `load_tokenizer` reads at a path.

    Raises:
      JclipError: nothing of that kind is there.
    """
    file = path / _file_of(path) if path.is_dir() else path
    if not file.is_file():
        raise JclipError(f"there is no tokenizer at {path}")
    return file


def wordpiece(vocab: Path | Sequence[str]) -> Tokenizer:
    """Chinese-CLIP's tokenizer from BERT's vocab.txt, or from its lines."""
    from jclip.tokenizers._bert_files import Pieces
    from jclip.tokenizers._wordpiece import WordPiece

    return Tokenizer(WordPiece(Pieces.read(vocab) if isinstance(vocab, Path) else Pieces(vocab)))


def train_unigram(texts: Iterable[str], vocab_size: int, *, character_coverage: float = 1.0) -> Tokenizer:
    """A small SentencePiece vocabulary in XLM-R's layout, <s> 0, <pad> 1, </s> 2, <unk> 3; the same for the same texts.

    Args:
      texts: sentences, in any order.
      vocab_size: number of ids; fewer when the texts hold fewer pieces.
      character_coverage: share of the characters' occurrences that get a piece; the rest becomes <unk>.

    Raises:
      JclipError: no texts, or a size that their characters alone exceed; the message gives SentencePiece's figure.
    """
    from jclip.tokenizers._unigram import Unigram, train

    return Tokenizer(Unigram.from_model(train(texts, vocab_size, character_coverage)))


def train_clip_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A small byte-pair vocabulary in CLIP's layout; the same for the same texts.

    It is smaller than `vocab_size` when the texts run out of pairs to merge.
    """
    from jclip.tokenizers._clip_bpe import ClipBpe, train

    return Tokenizer(ClipBpe(train(texts, vocab_size)))


_ENDINGS: dict[str, Kind | None] = {
    "tokenizer.json": None,  # which kind, it says inside
    "vocab.txt": "wordpiece",
    ".model": "xlmr",
    "merges.txt": "clip_bpe",
    ".txt.gz": "clip_bpe",
}
_OF_BERT: tuple[Kind, ...] = ("wordpiece", "bert")
_MODELS: dict[str, Kind] = {"WordPiece": "wordpiece", "Unigram": "xlmr", "BPE": "clip_bpe"}


def _makers() -> dict[Kind, Callable[[Path], Vocabulary]]:
    from jclip.tokenizers._bert import Bert
    from jclip.tokenizers._clip_bpe import ClipBpe
    from jclip.tokenizers._unigram import Unigram
    from jclip.tokenizers._wordpiece import WordPiece

    return {"wordpiece": WordPiece.read, "bert": Bert.read, "xlmr": Unigram.read, "clip_bpe": ClipBpe.read}


def _kind_of(file: Path) -> Kind:
    for ending, kind in _ENDINGS.items():
        if file.name.endswith(ending):
            return kind or _kind_of_json(file)
    raise JclipError(f"{file} is no known vocabulary: expected a name that ends in one of {', '.join(_ENDINGS)}")


def _kind_of_json(file: Path) -> Kind:
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


def _kind_in(descriptor: Path) -> Kind:
    record = read_object(descriptor)
    kind, version = entry(record, "kind", str, descriptor), entry(record, "format", int, descriptor)
    if version != _FORMAT or kind not in _makers():
        raise JclipError(f"{descriptor} says kind {shown(repr(kind))}, format {version}: use the jclip that wrote it")
    return kind
