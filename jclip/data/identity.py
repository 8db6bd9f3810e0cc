"""Identity of images and texts: 63 bits of a digest of their content, independent of the source.

Equal images count once in a gallery, equal texts are one query, and neither are negatives of each other in a batch.
Among ten million different texts or images, the probability of any collision is about 5 in a million.
"""

import hashlib
import re
import unicodedata

_SPACE = re.compile(r"[^\S\x0b\x0c\x1c-\x1f\x85]+")
"""White space without control characters: BERT's tokenizers drop those, which joins the words around them."""


def picture_identity(encoded: bytes) -> int:
    """Returns the identity of an image, from 0 to 2^63 - 1, from the bytes of its file.

    Decoded pixels would also match a copy with other metadata. But a lossy copy has other pixels anyway, pixels depend
    on the version of the decoder, and decoding takes much longer than a digest.
    """
    return _digest(encoded)


def text_identity(text: str) -> int:
    """Returns the identity of a text, from 0 to 2^63 - 1, from its `plain_text`."""
    return _digest(plain_text(text).encode("utf-8", "surrogatepass"))


def plain_text(text: str) -> str:
    r"""Returns a text in Unicode's form NFC, with single spaces and no surrounding white space.

    Texts that differ only in this look the same, and every tokenizer gives them the same ids. Compatibility forms
    (NFKC), case and punctuation are kept, because people and some tokenizers see them.

    >>> plain_text("  cafe\u0301\u3000noir\n") == "caf\u00e9 noir"
    True
    >>> plain_text("m\u00b2") == plain_text("m2")
    False
    """
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip(" ")


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1
