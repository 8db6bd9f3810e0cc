"""Rewrites the tables of docs/ledger.md from jclip/configs/figures.py: `python -m docs.ledger`."""

from collections.abc import Mapping
from pathlib import Path

from docs.tables import rewritten, table
from jclip.configs import figures
from jclip.configs.figures import joined

FILE = Path(__file__).with_suffix(".md")


def model(size: str) -> str:
    """Returns the name of a Chinese-CLIP bundle: "chinese-clip-vit-b-16"."""
    return f"chinese-clip-{size.replace('_', '-')}"


def muge() -> str:
    """Returns Chinese-CLIP's table 1."""
    rows = [(model(size), joined(zero_shot), joined(tuned)) for size, (zero_shot, tuned) in figures.MUGE.items()]
    return table(("MODEL", "zero-shot", "fine-tuned"), rows)


def translated(found: Mapping[str, tuple[figures.Triple, ...]]) -> str:
    """Returns one half of Chinese-CLIP's table 2: Flickr30K-CN or COCO-CN."""
    rows = [(model(size), *map(joined, row)) for size, row in found.items()]
    return table(("MODEL", "T→I", "I→T", "T→I fine-tuned", "I→T fine-tuned"), rows)


def elevater() -> str:
    """Returns Chinese-CLIP's table 12."""
    rows = [(f"`{name}`", metric, *(f"{x:.1f}" for x in row)) for name, (metric, row) in figures.ELEVATER.items()]
    rows.append(("average of the 20", "", *(f"{x:.1f}" for x in figures.ELEVATER_AVERAGE)))
    rows.append(("`imagenet`", "accuracy", *(f"{x:.1f}" for x in figures.IMAGENET_CN)))
    return table(("NAME", "metric", "RN50", "B/16", "L/14", "L/14@336", "H/14"), rows)


def imagenet() -> str:
    """Returns AltCLIP's table 1."""
    rows = [(name, *(joined(row, " ") for row in both)) for name, both in figures.IMAGENET.items()]
    return table(("MODEL", "en: IN, Sketch, A, R, V2", "zh: IN, Sketch, A, R, V2"), rows)


def retrieval() -> str:
    """Returns AltCLIP's table 2."""
    rows = []
    for protocol, (title, models) in figures.RETRIEVAL.items():
        command = f"`jclip eval retrieval bundles/MODEL data/{protocol} --protocol {protocol}`"
        cells = [f"{joined(texts, ' ')}, {joined(images, ' ')}, {mean:.1f}" for texts, images, mean in models]
        rows.append((title, command, *cells))
    return table(("set", "command", *figures.MODELS), rows)


def xtd() -> str:
    """Returns AltCLIP's table 3."""
    return table(
        ("", *figures.XTD_LANGUAGES), [(name, *(f"{x:.1f}" for x in row)) for name, row in figures.XTD.items()]
    )


def ablation() -> str:
    """Returns AltCLIP's table 4."""
    rows = [
        (*(mark.strip() for mark in marks), f"{joined(row[:2])}, {joined(row[2:])}", recipe)
        for recipe, (marks, row) in figures.ABLATION.items()
    ]
    return table(("English", "machine", "human", "pairs", "en/zh, en/zh", "recipe"), rows)


TABLES = {
    "muge": muge,
    "flickr30k-cn": lambda: translated(figures.FLICKR30K_CN),
    "coco-cn": lambda: translated(figures.COCO_CN),
    "elevater": elevater,
    "imagenet": imagenet,
    "retrieval": retrieval,
    "xtd": xtd,
    "ablation": ablation,
}


def generated() -> dict[str, str]:
    """Returns the document's tables by name."""
    return {name: draw() for name, draw in TABLES.items()}


if __name__ == "__main__":
    FILE.write_text(rewritten(FILE.read_text(encoding="utf-8"), generated()), encoding="utf-8")
