"""Fine-tuning from the request to the better of two models: `plan`, then `run`. Each resumes when called again."""

import hashlib
import os
import shlex
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jclip.bundle import open_bundle
from jclip.configs.loading import load_config
from jclip.console import Console
from jclip.data.importing.any_format import describe_folder, import_pairs
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.importing.validation import HeldOut
from jclip.data.sources.folders import open_folder
from jclip.errors import JclipError
from jclip.finetune import outcome as results
from jclip.finetune.choices import Choice, Wishes, choose
from jclip.finetune.facts import read_data, read_machine, read_model
from jclip.finetune.writing import VALID, configuration
from jclip.io.files import whole_file
from jclip.io.json_files import entry, read_object
from jclip.loading import absolute, load, local_bundle, pinned
from jclip.plain import as_json
from jclip.running import run as train
from jclip.train.identity import OtherConfiguration
from jclip.train.logging.progress import ProgressWatcher
from jclip.train.logging.sinks import read_journal

FILE, NOTE, RUN, DATA = "finetune.py", "finetune.json", "run", "data"
"""Names in the output folder: the configuration, the request and the choices, the run's folder, imported data."""


@dataclass(frozen=True)
class Request:
    """A fine-tuning: a model, data and wishes.

    Attributes:
      bundle: model to start from, a source of `jclip.load`.
      data: a table, a folder of images, or an imported folder.
      out: output folder.
      validation: images held out if the data have no split "valid": a share such as "10%", or a number.
      reading: options for reading the data.
      max_skipped: maximum number or share of skipped records; None for the default.
      wishes: length and batch size, if not chosen automatically.
      seed: seed of the data order, the augmentation and dropout, >= 0.
    """

    bundle: str
    data: Path
    out: Path
    validation: str = "10%"
    reading: Reading = Reading()
    max_skipped: str | None = None
    wishes: Wishes = Wishes()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise JclipError(f"--seed {self.seed} is not possible: give 0 or more")

    @property
    def noted(self) -> dict[str, Any]:
        """The fields as JSON for the output folder's note, with absolute paths: another request gets another folder."""
        reading = asdict(self.reading)
        if self.reading.root is not None:
            reading["root"] = str(Path(self.reading.root).resolve())
        if self.reading.splits is not None:
            reading["splits"] = list(self.reading.splits)  # JSON has no tuples
        return {
            "bundle": absolute(self.bundle),
            "data": str(self.data.resolve()),
            "validation": self.validation,
            **reading,
            "max_skipped": self.max_skipped,
            **asdict(self.wishes),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Planned:
    """A fine-tuning whose configuration is written.

    Attributes:
      request: the request.
      table: the choices with their reasons.
      data: folder of the imported data.
      note: content of the note.
    """

    request: Request
    table: tuple[Choice, ...]
    data: Path
    note: dict[str, Any] = field(repr=False)

    @property
    def file(self) -> Path:
        """The configuration, which may be edited."""
        return self.request.out / FILE

    @property
    def digest(self) -> str:
        """Hash of the configuration."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    @property
    def finished(self) -> bool:
        """True if this configuration has been run to its end."""
        return self.note.get("finished") == self.digest and (self.request.out / results.BEST).is_dir()

    def command(self, name: str = "") -> str:
        """Returns the command that trains the configuration, or a copy of that name, in another folder."""
        return shlex.join(["jclip", "train", str(self.file.with_name(name or FILE)), "--workdir", "another"])


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped and saved, after `steps` steps; `signal` is the signal that stopped it, or None."""

    steps: int
    signal: int | None


def plan(request: Request, console: Console) -> Planned:
    """Imports the data, chooses the settings, and writes them as a configuration; reads them if they exist.

    Raises JclipError if the model or the data cannot be used, or the output folder belongs to another request.
    """
    note = _open_note(request)
    if not (request.out / FILE).is_file():
        note = _choose(request, note, console)
    table = tuple(Choice(**row) for row in note["table"])
    return Planned(request, table, Path(note["folder"]), note)


def run(planned: Planned, console: Console) -> results.FinetuneOutcome | Stopped:
    """Trains the configuration, compares starting model and best checkpoint, and writes the better one and the report.

    Raises JclipError as `train` does, and if the configuration was changed after its run began.
    """
    request, digest = planned.request, planned.digest
    if planned.finished:
        console.tell("finished already")
        return results.read_outcome(request.out, planned.data)
    configured = load_config(str(planned.file))
    workdir = request.out / RUN
    try:
        with ProgressWatcher(console, configured.name, lines=10) as watcher:
            ended = train(configured, workdir, watcher=watcher)
    except OtherConfiguration:
        raise JclipError(
            f"{planned.file} was changed after its run began: undo the change, or run the new file with "
            f"`{planned.command()}`"
        ) from None
    if not ended.finished:
        return Stopped(ended.position.total, ended.signal)
    start = local_bundle(planned.note.get("start", request.bundle))  # the same commit of a repository as before
    with console.working("comparing with the starting model"):
        splits = [VALID, *(["test"] if "test" in open_folder(planned.data).info.splits else [])]
        trained = results.trained_bundle(workdir, ended.bundles)
        found, sections = results.settle(start, trained, planned.data, splits, request.out)
        journal = read_journal(workdir / "metrics.jsonl")
        results.write_report(request.out, found, journal, planned.table, sections)
    _write_note(request.out, {**planned.note, "finished": digest})
    return found


def _open_note(request: Request) -> dict[str, Any]:
    """Reads the output folder's note, or creates both. Raises JclipError if the folder is not this request's."""
    file, out = request.out / NOTE, request.out
    if not file.is_file():
        open_bundle(local_bundle(request.bundle))  # checked before the output folder is created
        HeldOut.read(request.validation)
        if not request.data.exists():
            raise JclipError(f"{request.data} does not exist: name a table, a folder of images, or an imported folder")
        if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
            raise JclipError(f"{out} holds other files: name a new folder as OUT")
        out.mkdir(parents=True, exist_ok=True)
        return _write_note(out, {"asked": request.noted})
    note = read_object(file, "as the note of a fine-tuning")
    before = entry(note, "asked", dict, file)
    changed = [name for name, value in request.noted.items() if before.get(name) != value]
    if changed and not (out / FILE).is_file():  # nothing is chosen yet, so the request may change
        shutil.rmtree(out / DATA, ignore_errors=True)
        return _write_note(out, {"asked": request.noted})
    if changed:
        name = changed[0]
        raise JclipError(
            f"{out} is a fine-tuning with another {name.replace('_', '-')} ({before.get(name)!r}, now "
            f"{request.noted[name]!r}): name a new folder as OUT, or repeat the first request"
        )
    return dict(note)


def _choose(request: Request, note: dict[str, Any], console: Console) -> dict[str, Any]:
    """Imports the data, chooses, and writes the configuration; returns the note with the choices."""
    start, name = local_bundle(request.bundle), pinned(request.bundle)
    with console.working("reading the data") as say:
        folder = import_pairs(
            request.data,
            request.out / DATA,
            request.reading,
            validation=HeldOut.read(request.validation),
            limit=None if request.max_skipped is None else Limit.read(request.max_skipped),
            progress=lambda what, done, total: say(f"{what} {done}/{total}" if total else what),
        )
        for line in describe_folder(folder):
            console.tell(line)
        bundle = open_bundle(start)
        data, model = read_data(folder, bundle.tokenizer, bundle.context_length), read_model(bundle)
        say("scoring the starting model")
        tasks, main = results.validation_tasks(folder)
        measured = results.measure(load(start), tasks[main])
        say("timing this machine")
        machine = read_machine()
    chosen = choose(data, model, machine, measured, request.wishes)
    text = configuration(
        chosen,
        data,
        model,
        machine,
        bundle=name,
        converted=name != str(start.resolve()),
        folder=folder,
        here=request.out,
        seed=request.seed,
        headline=results.headline(tasks, main),
    )
    rows = [asdict(choice) for choice in chosen.table]
    note = _write_note(request.out, {**note, "start": name, "folder": str(folder.resolve()), "table": rows})
    with whole_file(request.out / FILE) as partial:
        partial.write_text(text, encoding="utf-8")
    return note


def _write_note(out: Path, note: dict[str, Any]) -> dict[str, Any]:
    with whole_file(out / NOTE, replace=True) as partial:
        partial.write_text(as_json(note, indent=1) + "\n", encoding="utf-8")
    return note
