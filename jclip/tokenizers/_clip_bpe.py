"""CLIP's byte-pair encoding (Radford et al. 2021): text is repaired by ftfy and lower-cased, words end in "</w>".

Ids in order: 256 bytes, the same 256 at the end of a word, one for each merge, <|startoftext|>, <|endoftext|>. Inside a
text, the last two are written <start_of_text> and <end_of_text>, as in open_clip.
"""

import gzip
import html
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, pre_tokenizers, processors
from tokenizers import Tokenizer as Engine
from tokenizers.models import BPE

from jclip.errors import JclipError
from jclip.io.json_files import read_bytes, read_object
from jclip.names import TokenizerKind
from jclip.tokenizers._complete import clip_normalizer

_END = "</w>"
_SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
_IN_TEXT = ("<start_of_text>", "<end_of_text>")
_LARGEST = 64 << 20  # bytes; CLIP's list has 3 MB
_ORIGINAL_MERGES = 49_152 - 256 - 2  # CLIP's file holds more than CLIP uses
# U+0345, a combining mark, is not part of any word: its upper case is a letter, so CLIP's case-insensitive pattern
# matches it neither as a letter nor as another character.
_WORDS = rf"(?i:{'|'.join(_IN_TEXT)}|'s|'t|'re|'ve|'m|'ll|'d)|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}\u0345]+"

Merge = tuple[str, str]


class ClipBpe:
    """CLIP vocabulary, given by a list of merges."""

    kind: TokenizerKind = "clip_bpe"

    def __init__(self, merges: Sequence[Merge]):
        self._merges = list(merges)
        alphabet = _alphabet()
        spelt = [*alphabet, *(letter + _END for letter in alphabet), *("".join(merge) for merge in merges)]
        ids = {token: number for number, token in enumerate(spelt)}
        self.tokens = [*spelt, *_SPECIAL]
        self.pad, self.begin, self.end = 0, len(spelt), len(spelt) + 1
        self._engine = Engine(BPE(ids, self._merges, end_of_word_suffix=_END))
        self._engine.pre_tokenizer = _split()

    @classmethod
    def read(cls, file: Path) -> "ClipBpe":
        """Reads a file of merges, gzipped or not, or a tokenizer.json.

        Raises JclipError if it is damaged, or the ids (in a tokenizer.json, or in a vocab.json beside the merges) are
        not CLIP's.
        """
        try:
            if file.suffix == ".json":
                model = read_object(file)["model"]
                merges, ids = [_pair(merge) for merge in model["merges"]], model["vocab"]
            else:
                merges, ids = _lines(file)[:_ORIGINAL_MERGES], _beside(file)
            vocabulary = cls(merges)
        except JclipError:
            raise
        except Exception as error:  # the engine raises bare Exception for a merge of unknown tokens
            raise JclipError(f"{file} is not a list of byte-pair merges, or damaged: {error}") from None
        if ids is not None and ids != {token: number for number, token in enumerate(vocabulary.tokens)}:
            raise JclipError(f"{file}: its ids are not CLIP's (bytes, bytes that end a word, merges, two special ones)")
        return vocabulary

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without <|startoftext|> and <|endoftext|> around it."""
        cleaned = [_clean(text) for text in texts]
        ids = [each.ids for each in self._engine.encode_batch(cleaned)]
        for number, text in enumerate(cleaned):
            if any(special in text for special in _IN_TEXT):
                ids[number] = self._encode_with_special(text)
        return ids

    def _encode_with_special(self, text: str) -> list[int]:
        special = dict(zip(_IN_TEXT, (self.begin, self.end), strict=True))
        ids: list[int] = []
        for word, _ in _words().pre_tokenize_str(text):
            ids += [special[word]] if word in special else self._engine.encode(word).ids
        return ids

    def engine_json(self) -> str:
        """Returns the engine as a tokenizer.json."""
        return self._engine.to_str()

    def complete(self) -> Engine:
        """Returns an engine that cleans text by the rules that the library can express."""
        model = json.loads(self._engine.to_str())
        model["model"]["vocab"] = {token: number for number, token in enumerate(self.tokens)}
        engine = Engine.from_str(json.dumps(model))
        engine.normalizer = clip_normalizer()
        engine.decoder = decoders.ByteLevel()
        begin, end = _SPECIAL
        engine.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}", special_tokens=[(begin, self.begin), (end, self.end)]
        )
        return engine

    def save(self, folder: Path) -> None:
        """Writes merges.txt."""
        lines = ["#version: 0.2", *(" ".join(merge) for merge in self._merges)]
        (folder / "merges.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _lines(file: Path) -> list[Merge]:
    data = read_bytes(file)
    if file.suffix == ".gz":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            data = stream.read(_LARGEST + 1)  # a few bytes may unpack to gigabytes
        if len(data) > _LARGEST:
            raise JclipError(f"{file} holds more than {_LARGEST >> 20} MiB: it is not a list of byte-pair merges")
    lines = data.decode("utf-8").split("\n")[1:]
    return [_pair(line) for line in lines if line]


def _pair(merge: str | Sequence[str]) -> Merge:
    first, second = merge.split() if isinstance(merge, str) else merge
    return first, second


def _beside(file: Path) -> dict[str, Any] | None:
    vocab = file.with_name("vocab.json")
    return read_object(vocab) if vocab.is_file() else None


def train_merges(texts: Iterable[str], vocab_size: int) -> list[Merge]:
    """Learns merges for at most `vocab_size` ids, most frequent first. Raises JclipError if it is below 514."""
    alphabet = _alphabet()
    least = 2 * len(alphabet) + 2
    if vocab_size < least:
        raise JclipError(f"a byte-pair vocabulary of {vocab_size} cannot hold the bytes: give it {least} or more")
    splitter, words = _split(), Counter[str]()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(_clean(text)))
    return _merge_most_frequent(words, vocab_size - least)


def _merge_most_frequent(words: Mapping[str, int], count: int) -> list[Merge]:
    """Learns at most `count` merges (Sennrich et al. 2016). Equally frequent pairs are merged in alphabetical order.

    Pairs are counted once, then updated word by word. The trainer of the `tokenizers` library is faster, but breaks
    ties differently from one process to the next.
    """
    spelt = {word: [*word[:-1], word[-1] + _END] for word in words}
    counts: Counter[Merge] = Counter()
    where: defaultdict[Merge, set[str]] = defaultdict(set)
    for word, letters in spelt.items():
        for pair in pairwise(letters):
            counts[pair] += words[word]
            where[pair].add(word)
    merges: list[Merge] = []
    while len(merges) < count and counts:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        merges.append(best)
        for word in where.pop(best):
            for pair in pairwise(spelt[word]):
                counts[pair] -= words[word]
                if counts[pair] <= 0:
                    del counts[pair]
            spelt[word] = _merged(spelt[word], best)
            for pair in pairwise(spelt[word]):
                counts[pair] += words[word]
                where[pair].add(word)
    return merges


def _merged(letters: Sequence[str], pair: Merge) -> list[str]:
    joined: list[str] = []
    at = 0
    while at < len(letters):
        together = tuple(letters[at : at + 2]) == pair
        joined.append("".join(pair) if together else letters[at])
        at += 2 if together else 1
    return joined


def _words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)


def _split() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([_words(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _clean(text: str) -> str:
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _alphabet() -> list[str]:
    """Returns a printable letter for each byte, in CLIP's order: bytes printable in Latin-1 first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]
