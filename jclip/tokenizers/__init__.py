"""The text towers' tokenizers: WordPiece, CLIP's BPE and unigram.

Names:
  Tokenizer: a tokenizer with its special tokens.
  load: returns the tokenizer in a folder or a vocabulary file.
  pad: returns token ids as one array, padded.
  wordpiece: returns Chinese-CLIP's tokenizer for a BERT vocabulary.
  train_unigram: returns a unigram tokenizer trained on texts, like XLM-R's.
  train_clip_bpe: returns a byte-level BPE tokenizer trained on texts, like CLIP's.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.tokenizers.text import Tokenizer as Tokenizer
    from jclip.tokenizers.text import load_tokenizer as load
    from jclip.tokenizers.text import pad as pad
    from jclip.tokenizers.text import train_clip_bpe as train_clip_bpe
    from jclip.tokenizers.text import train_unigram as train_unigram
    from jclip.tokenizers.text import wordpiece as wordpiece

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
