"""Converts a PyTorch checkpoint to a bundle with a passport."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jclip.bundle import is_bundle, open_bundle, write_files
from jclip.conversion.candidates import count_by_top
from jclip.conversion.importing import CheckpointOptions, ImportedModel, import_model
from jclip.conversion.parity import passport
from jclip.conversion.parity.comparison import check, compare
from jclip.errors import JclipError
from jclip.extras import installing
from jclip.io.files import check_free, whole_folder
from jclip.io.tensors import Lazy
from jclip.plain import shown

FORMAT = 1
"""Version of what a conversion writes. A change makes `jclip.load` convert anew what is in its cache."""
Progress = Callable[[str], None]
"""Callback that receives the name of each step."""


def convert(
    name: str,
    destination: Path,
    options: CheckpointOptions = CheckpointOptions(),  # noqa: B008
    report: Progress = print,
) -> dict[str, Any]:
    """Converts a checkpoint to a bundle. Returns its passport.

    Raises JclipError, and leaves nothing at the destination, if the checkpoint is missing, damaged or of no known
    family; the converted model differs from the PyTorch model; or the destination exists or cannot be written.

    Args:
      name: a file, a folder, or hf://ORG/NAME with an optional @REVISION.
      destination: folder of the bundle, which must not exist.
      report: receives the name of each step.
    """
    check_free(destination)
    if is_bundle(Path(name)):
        raise JclipError(f"{name} is a bundle already: to write it for other libraries, give --to hf or --to cn-clip")
    report(f"reading {name}")
    model = import_model(name, options)
    under = f" under {shown(model.source.prefix)}" if model.source.prefix else ""
    left_out = f"; left out: {shown(count_by_top(model.source.left_out))}" if model.source.left_out else ""
    report(f"{model.source.family.title}: {len(model.mapped.keys)} tensors{under}{left_out}")
    with whole_folder(destination, replace=False) as partial:
        report("writing")
        write_files(model.bundle(), partial)
        report("comparing with PyTorch, layer by layer")
        written = open_bundle(partial)
        facts = {"role": "all", **model.facts(), "comparison": compared(model, written.tensors())}
        made = passport.make(written, [facts], changed=model.changed)
        passport.write(made, partial)
    return made


def compared(model: ImportedModel, tensors: Mapping[str, Lazy]) -> dict[str, Any]:
    """Compares a converted model with its PyTorch model and returns the passport's entry.

    `tensors` are its parameters as they were written. A tower without parameters is left out. In place of parameters
    interpolated to another image size, the checkpoint's own are compared. Raises JclipError if the two models differ.
    """
    originals = {path: model.mapped.tensors[path] for path in model.changed}
    try:
        comparison = compare(model.source, model.original, {**tensors, **originals})
    except ImportError as error:
        # A package that is installed but fails to import gives the reason in the error's cause.
        missing = isinstance(error, ModuleNotFoundError) and error.name
        why = f"{error.name} is not installed" if missing else f"import failed, {shown(str(error.__cause__ or error))}"
        return passport.not_compared(f"{why}: {installing('torch')}, then jclip verify")
    check(comparison, model.source.name)
    # The PyTorch model is built on the same assumptions, which the comparison therefore cannot prove.
    return {**passport.compared(comparison), "supposing": list(model.assumed)}
