"""The test artist's images as files, with a table of pairs for each language, for `jclip eval retrieval`."""

from pathlib import Path

from jclip.demo.emoji.protocol import ASKED
from jclip.demo.scores import Examination


def write_pairs(folder: Path, examination: Examination) -> Path:
    """Writes the known concepts' images and a LANGUAGE.tsv for each language; returns the Chinese table.

    Held-out names are omitted, so the tables are test T1 of `jclip.demo.scores`. If two concepts share a name, both
    images are correct, as in the demo's own figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = examination.emoji.rows("known").tolist()
    encoded = examination.emoji.encoded(examination.artist)
    files = {row: examination.emoji.concepts[row].codepoints + ".png" for row in rows}
    for row, name in files.items():
        (folder / name).write_bytes(encoded[row])
    for language in ASKED:
        shown = [row for row in rows if not examination.emoji.is_heldout(row, language)]
        lines = [f"{files[row]}\t{examination.emoji.names[language][row]}\n" for row in shown]
        (folder / f"{language}.tsv").write_text("".join(lines), encoding="utf-8")
    return folder / "zh.tsv"
