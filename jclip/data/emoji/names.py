"""The names of emoji in 14 languages, from the JSON files inside the `emoji` wheel."""

import json
from collections.abc import Sequence
from pathlib import Path

from jclip.data.emoji.fetch import opened
from jclip.data.emoji.protocol import LANGUAGES, Concept
from jclip.errors import JclipError


def read_names(wheel: Path, wanted: Sequence[Concept]) -> dict[str, dict[str, str]]:
    """Natural names: ":roter_apfel:" is "roter apfel".

    Args:
      wheel: the `emoji` wheel.
      wanted: the concepts.

    Returns:
      code points -> language -> name.

    Raises:
      JclipError: a concept without a name.
    """
    found: dict[str, dict[str, str]] = {concept.codepoints: {} for concept in wanted}
    with opened(wheel) as archive:
        for language in LANGUAGES:
            suffix = "" if language == "en" else f"_{language}"
            table = json.loads(archive.read(f"emoji/unicode_codes/emoji{suffix}.json"))
            for concept in wanted:
                entry = table.get(concept.text)
                name = entry["en"] if isinstance(entry, dict) else entry
                if not name:
                    raise JclipError(f"{wheel.name} has no {language} name of {concept.codepoints}")
                found[concept.codepoints][language] = natural(name)
    return found


def natural(name: str) -> str:
    """Drops the colons around a short name, and writes its underscores as the spaces that they stand for."""
    return " ".join(name.strip(":").replace("_", " ").split())
