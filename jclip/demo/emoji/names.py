"""Names of emoji in 14 languages, from the JSON files in the `emoji` wheel."""

import json
from collections.abc import Sequence
from pathlib import Path

from jclip.demo.emoji.fetch import opened
from jclip.demo.emoji.protocol import LANGUAGES, Concept
from jclip.errors import JclipError


def read_names(wheel: Path, wanted: Sequence[Concept]) -> dict[str, dict[str, str]]:
    """Reads {code points: {language: name}}, such as "roter apfel" for ":roter_apfel:", from the `emoji` wheel.

    Raises JclipError if a concept has no name in some language.
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
    """Removes the colons around a short name and replaces its underscores by spaces."""
    return " ".join(name.strip(":").replace("_", " ").split())
