"""Writes models for other runtimes: ONNX and StableHLO.

    model = jclip.load("bundles/chinese-clip")
    jclip.export.export(model, Path("exports/onnx"), jclip.export.format_named("onnx"))

Names:
  export: writes a model in a format to a new folder, and compares the two.
  Format, ExportOptions: a format of `jclip export`, and the choices of an export.
  format_named, register_format: the format of a name; adds one.
  onnx_writer: registers the function that writes a tower of your own as ONNX.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.export.exporting import export as export
    from jclip.export.formats import ExportOptions as ExportOptions
    from jclip.export.formats import Format as Format
    from jclip.export.formats import format_named as format_named
    from jclip.export.formats import register as register_format
    from jclip.export.onnx.towers import writes as onnx_writer

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
