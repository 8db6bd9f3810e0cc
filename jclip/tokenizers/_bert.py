"""BERT's WordPiece by its own rules (Devlin et al. 2019), for text encoders alone.

The engine is built as `BertTokenizer` of transformers 5 builds it and gives its ids: "[SEP]" in a text is that token,
not four words, and a curly quote stays one. Like there, tokenizer_config.json has the last word on case, accents and
Chinese characters, and a word has at most 100 characters whatever tokenizer.json says. Unlike there, tokenizer.json is
asked where tokenizer_config.json is silent, and a vocabulary without [MASK] gets none. The towers look at no [PAD], not
even at one that a text spells out.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Engine
from tokenizers.models import WordPiece as Model

from jclip.tokenizers._bert_files import ACCENTS, CASE, CHINESE, SPECIAL, Pieces
from jclip.tokenizers.text import Kind


class Bert:
    """The vocabulary, run by the `tokenizers` engine."""

    kind: Kind = "bert"

    def __init__(self, pieces: Pieces):
        self.pieces = pieces
        self._engine = _engine(pieces)
        self.pad, _, self.begin, self.end = (self._engine.token_to_id(token) for token in SPECIAL)

    @classmethod
    def read(cls, file: Path) -> "Bert":
        """From vocab.txt or tokenizer.json, and the tokenizer_config.json beside it."""
        return cls(Pieces.read(file))

    @cached_property
    def tokens(self) -> list[str]:
        """Every token by its id."""
        return self.pieces.tokens

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without the [CLS] and [SEP] around it."""
        return [each.ids for each in self._engine.encode_batch(list(texts), add_special_tokens=False)]

    def engine_json(self) -> str:
        """The engine as a tokenizer.json."""
        return self._engine.to_str()

    def save(self, folder: Path) -> None:
        """Writes vocab.txt, and tokenizer_config.json where there is something to say."""
        self.pieces.save(folder)


def _engine(pieces: Pieces) -> Engine:
    ids = {line: number for number, line in enumerate(pieces.lines)}
    engine = Engine(Model(ids, unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=pieces.settings.get(CASE, True),
        strip_accents=pieces.settings.get(ACCENTS),
        handle_chinese_chars=pieces.settings.get(CHINESE, True),
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix="##")
    said = {token.content for token in pieces.added}
    special = [token for token in (*SPECIAL, "[MASK]") if token in ids and token not in said]
    for token in (*pieces.added, *(AddedToken(token, special=True, normalized=False) for token in special)):
        # Apart, so that they get their ids in this order.
        (engine.add_special_tokens if token.special else engine.add_tokens)([token])
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, engine.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return engine
