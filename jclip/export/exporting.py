"""Exports a model: writes a format's files and the record, all or nothing."""

from pathlib import Path

import jax

from jclip.errors import JclipError
from jclip.export.formats import ExportOptions, Format, Say
from jclip.export.record import Record, record_of, write_record
from jclip.extras import check_installed
from jclip.inference import Model
from jclip.io.files import whole_folder

_UNSET = ExportOptions()


def check_options(form: Format, options: ExportOptions) -> None:
    """Raises JclipError if a format does not support an option that is set, or a module that it needs is missing."""
    for name in ("with_preprocessing", "int8"):
        if getattr(options, name) != getattr(_UNSET, name) and name not in form.options:
            raise JclipError(f"--{name.replace('_', '-')} does not go with --format {form.name}: omit it")
    check_installed(form.modules)


def export(
    model: Model,
    destination: Path,
    form: Format,
    options: ExportOptions = _UNSET,
    say: Say = lambda words: None,
) -> Record:
    """Writes a model in a format to a new folder, and returns its record. `say` receives the current step.

    Raises JclipError if the folder exists or cannot be written, the format does not support an option or the model, the
    model was not loaded whole and in float32, or the written files give other features than the model. Then nothing is
    left of the folder.
    """
    check_options(form, options)
    _check_whole(model)
    with whole_folder(destination, replace=False) as partial:
        record = record_of(model, form.name, form.write(model, partial, options, say))
        say("writing the record")
        write_record(record, partial)
    return record


def _check_whole(model: Model) -> None:
    if not model.bundle.params:
        raise JclipError("this model is an export already: export its bundle")
    if model.tower is not None:
        raise JclipError(f"this model was loaded with its {model.tower} tower alone: load both to export it")
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} - {"float32"}
    if dtypes:
        raise JclipError(f"this model was loaded in {dtypes.pop()}: load it in float32 to export it")
