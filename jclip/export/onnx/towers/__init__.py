"""Writers of towers: functions that add a tower of one kind to a graph.

A writer is registered for the class of the tower's configuration, as another package would do for its own:

    @writes(MixerConfig)
    def mixer(graph, tower, params, inputs, model):
        ...

and is called when a tower of that class, or of a class that inherits from it, is exported.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from jclip.errors import JclipError
from jclip.models.build import ModelConfig
from jclip.models.towers import Tower

if TYPE_CHECKING:  # a module that registers a writer needs no onnx
    from jclip.export.onnx.graph import Graph

Variables = Mapping[str, Any]
Writer = Callable[["Graph", Any, Variables, str, ModelConfig], str]
"""Function (graph, tower, variables, inputs, model) -> value of the embeddings (b, e), not L2-normalised.

`tower` is the tower's configuration, and `model` that of the whole model. `variables` has the tower's own "params" and
"batch_stats", host arrays. `inputs` are normalised images, float32 (b, 3, size, size), or token ids, int64 (b, l)."""

AnyWriter = TypeVar("AnyWriter", bound=Writer)

_OWN = tuple(f"jclip.export.onnx.towers.{name}" for name in ("vit", "resnet", "clip_text", "bert"))
_writers: dict[type, Writer] = {}


def writes(kind: type) -> Callable[[AnyWriter], AnyWriter]:
    """Registers the writer of a class of towers; returns the decorator."""

    def register(writer: AnyWriter) -> AnyWriter:
        _writers[kind] = writer
        return writer

    return register


def writer_of(tower: Tower, name: str) -> Writer:
    """Returns the writer of a tower. Raises JclipError, with the tower's `name`, if its class has none."""
    for module in _OWN:
        import_module(module)
    for kind in type(tower).__mro__:
        if kind in _writers:
            return _writers[kind]
    raise JclipError(
        f"the {name} tower is a {type(tower).__name__}, which cannot be written as ONNX: register its writer with "
        "jclip.export.onnx.towers.writes"
    )
