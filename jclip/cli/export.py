"""`jclip export BUNDLE DST --format onnx`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jclip.cli.options import read
from jclip.console import Console, facts, text
from jclip.errors import JclipError
from jclip.io.files import check_writable
from jclip.plain import print_json


@dataclass(frozen=True)
class ExportCommandOptions:
    """Writes BUNDLE for runtimes without jclip, as a new folder DST, and checks that it gives the same features.

    docs/export.md describes the files. `jclip.load`, and every command that only encodes, reads an ONNX export too.

    Attributes:
      bundle: folder of a model, or another source that `jclip.load` takes.
      destination: new folder.
      format: onnx, for onnxruntime, OpenVINO and others; or stablehlo, for jax on CPUs, GPUs and TPUs.
      with_preprocessing: put resizing and normalisation into the image graph. It then reads uint8 images of any size.
      int8: quantise the weights to 8 bits. Needs --gate, or --ungated.
      gate: images and captions on which recall is measured before and after --int8, as `jclip eval retrieval` reads
        them.
      protocol: published test of the gate, as in `jclip eval retrieval`.
      split: split of the gate's folder; by default the protocol's own, or "test".
      max_loss: refuse a quantised model that loses more than this number of percentage points of R@1 in the gate.
      ungated: quantise without a test; the record says so.
      json: print the record as JSON.
    """

    bundle: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="BUNDLE")]]
    destination: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    format: str = "onnx"
    with_preprocessing: bool = False
    int8: bool = False
    gate: Path | None = None
    protocol: str = ""
    split: str = ""
    max_loss: float = 1.0
    ungated: bool = False
    json: bool = False

    def check(self) -> None:
        """Raises JclipError for options that contradict each other."""
        gating = {
            "--gate": self.gate is not None,
            "--ungated": self.ungated,
            "--protocol": bool(self.protocol),
            "--split": bool(self.split),
            "--max-loss": self.max_loss != 1.0,
        }
        stray = next((name for name, given in gating.items() if given), None)
        if not self.int8 and stray:
            raise JclipError(f"{stray} is for --int8: give both, or neither")
        if self.ungated and (stray := next((name for name in gating if gating[name] and name != "--ungated"), None)):
            raise JclipError(f"{stray} and --ungated contradict each other: choose one")
        if self.int8 and self.gate is None and not self.ungated:
            raise JclipError(
                "--int8 can damage a model: give images and captions to measure it on, --gate DATA (as `jclip eval "
                "retrieval` reads them), or --ungated to skip the test"
            )
        if not 0 <= self.max_loss <= 100:
            raise JclipError(f"--max-loss is {self.max_loss:g}, but must be 0 to 100 percentage points: give 1")


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ExportCommandOptions, arguments, "jclip export")
    options.check()
    check_writable(options.destination)
    from jclip import loading
    from jclip.export.exporting import check_options, export
    from jclip.export.formats import ExportOptions, format_named

    form = format_named(options.format)
    console = Console(stderr=True, quiet=options.json)
    gate = None if options.gate is None else _Gate(options.gate, options.protocol, options.split)
    choices = ExportOptions(options.with_preprocessing, options.int8, gate, options.max_loss)
    check_options(form, choices)
    with console.working("reading") as say:
        record = export(loading.load(options.bundle), options.destination, form, choices, say)
    if options.json:
        print_json({"written": str(options.destination), "format": form.name, form.name: record.own}, indent=1)
    else:
        table = facts(f"{options.destination}: {form.what}")
        for name, value in _rows(record.own):
            table.add_row(text(name), text(value, longest=None))
        Console().print(table)
    return 0


class _Gate:
    """Recall of a model on the images and captions that the user names."""

    def __init__(self, data: Path, protocol: str, split: str):
        from jclip.evaluate.datasets.opening import open_retrieval

        self._tests = open_retrieval(data, protocol, split, ())
        secret = next((task for task in self._tests.tasks if not task.has_answers), None)
        if secret is not None:
            raise JclipError(
                f"{secret.name} has no answers, so it cannot be a gate: give another --split, or other data"
            )
        said = ", ".join(filter(None, (protocol, split)))
        self.name = f"{data} ({said})" if said else str(data)

    def __call__(self, model: Any) -> Mapping[str, float]:
        from jclip.evaluate.tasks.retrieval import encode_tasks, evaluate

        encoded = encode_tasks(self._tests.tasks, model)
        results = evaluate(self._tests, encoded, settings={}, resamples=0).results
        return {
            " ".join(filter(None, (test.language, name))): value
            for test in results.tests
            for name, value in test.figures.items()
            if name.endswith("_r1") and "chance" not in name
        }


def _rows(own: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Returns nested facts as rows of a name and a value."""
    rows = []
    for name, value in own.items():
        if isinstance(value, Mapping):
            rows += _rows(value, f"{before}{name} ")
        else:
            rows.append((f"{before}{name}".replace("_", " "), _shown(value)))
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_shown(each) or '""' for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
