"""WordPiece by BERT's own rules (Devlin et al. 2019), for text encoders without an image tower.

The engine is configured like `BertTokenizer` of transformers 5 and gives the same ids: "[SEP]" in a text is that token,
and curly quotes are kept. tokenizer_config.json overrides tokenizer.json on case, accents and Chinese characters. Words
are limited to 100 characters. Unlike in transformers, settings that tokenizer_config.json lacks come from
tokenizer.json, and no [MASK] is added to a vocabulary without it. The towers mask every [PAD], even one written in a
text.
"""

from collections.abc import Sequence

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Engine
from tokenizers.models import WordPiece as Model

from jclip.names import TokenizerKind
from jclip.tokenizers._bert_files import ACCENTS, CASE, CHINESE, SPECIAL, BertPieces, BertVocabulary


class Bert(BertVocabulary):
    """BERT vocabulary with BERT's rules."""

    kind: TokenizerKind = "bert"

    def __init__(self, pieces: BertPieces):
        super().__init__(pieces)
        self._engine = _engine(pieces)
        self.pad, _, self.begin, self.end = (self._engine.token_to_id(token) for token in SPECIAL)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without the [CLS] and [SEP] around it."""
        return [each.ids for each in self._engine.encode_batch(list(texts), add_special_tokens=False)]

    def complete(self) -> Engine:
        """Returns a copy of the engine, which is complete."""
        return Engine.from_str(self._engine.to_str())


def _engine(pieces: BertPieces) -> Engine:
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
        # One by one, so that they get their ids in this order.
        (engine.add_special_tokens if token.special else engine.add_tokens)([token])
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, engine.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return engine
