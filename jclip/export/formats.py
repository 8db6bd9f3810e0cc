"""Formats of `jclip export`, by name.

A format is a `Format`. Another package adds one with `register`, in a module that `jclip.outside` imports. jclip's own
are in the modules of `_OWN`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from jclip.errors import JclipError
from jclip.inference import Model
from jclip.names import suggestion
from jclip.outside import KINDS, import_kind

Say = Callable[[str], object]
"""Callback that receives a description of the current step."""

_OWN = ("jclip.export.onnx", "jclip.export.stablehlo")


class Gate(Protocol):
    """Test that a quantised model must pass; `name` says what it measures on."""

    name: str

    def __call__(self, model: Any, /) -> Mapping[str, float]:
        """Returns the figures of a model with `encode_image` and `encode_text`, such as {"t2i_r1": 0.615}."""


@dataclass(frozen=True)
class ExportOptions:
    """Choices of an export. A format lists those that it supports in `Format.options`.

    Attributes:
      with_preprocessing: put resizing and normalisation into the image graph.
      int8: quantise the weights.
      gate: test of the quantised model; None for no test.
      max_loss: maximum loss of a figure in the gate, percentage points (hundredths of a figure).
    """

    with_preprocessing: bool = False
    int8: bool = False
    gate: Gate | None = None
    max_loss: float = 1.0


@dataclass(frozen=True)
class Format:
    """A format of `jclip export`.

    Attributes:
      name: name on the command line.
      what: contents of the exported folder, for the help.
      write: function that writes the files into an empty folder and returns its own entries of the export's record, see
        `jclip.export.record`. Raises JclipError if the model cannot be written, or the written files give other
        features than the model.
      options: names of the `ExportOptions` that it supports.
      modules: optional modules that it needs.
    """

    name: str
    what: str
    write: Callable[[Model, Path, ExportOptions, Say], dict[str, Any]]
    options: frozenset[str] = frozenset()
    modules: tuple[str, ...] = ()


_formats: dict[str, Format] = {}


def register(form: Format) -> Format:
    """Makes a format known by its name, and returns it. Replaces an earlier one of the same name."""
    _formats[form.name] = form
    return form


def all_formats() -> dict[str, Format]:
    """Returns the known formats by name."""
    for module in _OWN:
        import_module(module)
    return dict(_formats)


def format_named(name: str) -> Format:
    """Returns a format, which a module from outside may register: see `jclip.outside`.

    Raises JclipError if there is none of that name.
    """
    if name not in all_formats():
        import_kind(name)
    known = all_formats()
    if name not in known:
        raise JclipError(
            f"{name} is not a known format: {suggestion(name, known)}, or name the module that registers it in {KINDS}"
        )
    return known[name]
