"""`jclip finetune BUNDLE DATA OUT`."""

import hashlib
import os
import shlex
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.table import Table

from jclip.bundle import open_bundle
from jclip.cli.configs import load_config
from jclip.cli.options import read
from jclip.console import Console
from jclip.data.importing.anything import bring, described
from jclip.data.importing.encodings import check_encoding
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.importing.validation import Share
from jclip.data.sources.folders import open_folder
from jclip.errors import JclipError
from jclip.evaluate.report import page
from jclip.evaluate.report.report import terminal
from jclip.evaluators import evaluators
from jclip.finetune import outcome as results
from jclip.finetune.choices import Choice, Wishes, choose
from jclip.finetune.facts import read_data, read_machine, read_model
from jclip.finetune.writing import VALID, configuration
from jclip.inference import load
from jclip.io.files import whole_file
from jclip.io.json_files import entry, read_object
from jclip.plain import as_json, print_json
from jclip.train.identity import OtherConfiguration
from jclip.train.logging.telemetry import ProgressWatcher, read_journal
from jclip.train.loop import train
from jclip.train.outcome import Outcome

FILE, NOTE, RUN, DATA = "finetune.py", "finetune.json", "run", "data"
"""Names in OUT: the configuration, what was asked and chosen, the run's folder, imported data."""


@dataclass(frozen=True)
class Options:
    """Fine-tunes BUNDLE on pictures with captions; started again, it resumes where it stopped.

    DATA is a table with a picture and a caption in each row (CSV or TSV), a folder of pictures with captions beside
    them, or a folder that `jclip data import` wrote. Batch, learning rate, epochs and the rest are chosen from the
    data, the model and the machine, printed, and written to OUT/finetune.py, where you can change any of it. OUT/best
    is the better of BUNDLE and the best moment of the run, by mean recall on the validation split.

    Attributes:
      bundle: a model's folder.
      data: pictures with captions.
      out: a new folder for finetune.py, run/, the bundle best/ and report.html; data/ if DATA is imported.
      validation: pictures kept for validation where DATA has no split "valid": a share, or a number as 30.
      language: of the captions, as zh.
      root: the folder that the pictures' paths in a table begin in; by default the table's own.
      picture, caption: columns of a table; found by default.
      encoding: of a table or of captions, as gb18030; found by default.
      captions_from: files beside the pictures of a folder, or the pictures' names.
      max_skipped: stop when more of DATA is skipped: a number, or a share as 10%, which is the default.
      epochs: how often each pair is seen.
      minutes: about how long it may take; the estimate is printed.
      batch_size: pairs a step.
      seed: of the order, the augmentation and dropout.
      json: print the outcome as JSON, and no progress.

    Exit code: 0 when finished; 75 when SIGTERM stopped it after saving: start it again; 130 when Ctrl-C did.
    """

    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    validation: str = "10%"
    language: str | None = None
    root: str | None = None
    picture: str | None = None
    caption: str | None = None
    encoding: str | None = None
    captions_from: Literal["files", "names"] | None = None
    max_skipped: str | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int | None = None
    seed: int = 0
    json: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the run, for OUT's note; places in full, so that it is the same from any folder."""
        said = {name: value for name, value in asdict(self).items() if name not in ("bundle", "data", "out", "json")}
        root = None if self.root is None else str(Path(self.root).resolve())
        return {"bundle": str(self.bundle.resolve()), "data": str(self.data.resolve()), **said, "root": root}

    @property
    def reading(self) -> Reading:
        """How the data are read."""
        return Reading(
            language=self.language,
            root=self.root,
            picture=self.picture,
            caption=self.caption,
            encoding=None if self.encoding is None else check_encoding(self.encoding),
            captions_from=self.captions_from,
        )


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip finetune")
    if options.seed < 0:
        raise JclipError(f"--seed {options.seed} is not possible: give 0 or more")
    console = Console(stderr=True, quiet=options.json)
    note = _note(options)
    if not (options.out / FILE).is_file():
        note = _plan(options, note, console)
    table = [Choice(**row) for row in note["table"]]
    _show(table, options.out / FILE, console)
    edition = _digest(options.out / FILE)
    data, done = Path(note["folder"]), note.get("finished") == edition and (options.out / results.BEST).is_dir()
    if done:
        console.tell("finished already")
        found = results.read_outcome(options.out, data)
    else:
        ended = _run(options, console)
        if not ended.finished:
            console.tell(f"stopped after {ended.position.total} steps, saved: the same command goes on from here")
            return os.EX_TEMPFAIL if ended.signal == signal.SIGTERM else 128 + signal.SIGINT
        with console.working("comparing with the start"):
            found = _settle(options, data, ended, table)
        _write_note(options.out, {**note, "finished": edition})
    _tell(options, data, found, console)
    return 0


def _note(options: Options) -> dict[str, Any]:
    """What OUT is known to be; for a new one what was asked.

    Raises:
      JclipError: OUT is something else, or was asked otherwise.
    """
    file = options.out / NOTE
    if not file.is_file():
        open_bundle(options.bundle)  # what is wrong with it shows before OUT is made
        Share.read(options.validation)
        if not options.data.exists():
            raise JclipError(f"there is no {options.data}: name a table, a folder of pictures, or an imported folder")
        if os.path.lexists(options.out) and (not options.out.is_dir() or any(options.out.iterdir())):
            raise JclipError(f"{options.out} holds something else: name a new folder as OUT")
        options.out.mkdir(parents=True, exist_ok=True)
        note = {"asked": options.asked}
        _write_note(options.out, note)
        return note
    note = read_object(file, "as the note of a fine-tuning")
    before = entry(note, "asked", dict, file)
    changed = [name for name, value in options.asked.items() if before.get(name) != value]
    if changed and not (options.out / FILE).is_file():  # nothing was chosen yet, so it may be asked otherwise
        shutil.rmtree(options.out / DATA, ignore_errors=True)
        note = {"asked": options.asked}
        _write_note(options.out, note)
    elif changed:
        name = changed[0]
        raise JclipError(
            f"{options.out} is a fine-tuning with another {name.replace('_', '-')} ({before.get(name)!r}, now "
            f"{options.asked[name]!r}): name a new folder as OUT, or ask as before"
        )
    return dict(note)


def _plan(options: Options, note: dict[str, Any], console: Console) -> dict[str, Any]:
    """Brings the data, looks, chooses, and writes OUT/finetune.py; returns the note with what was chosen."""
    with console.working("reading the data") as say:
        folder = bring(
            options.data,
            options.out / DATA,
            options.reading,
            validation=Share.read(options.validation),
            limit=None if options.max_skipped is None else Limit.read(options.max_skipped),
            progress=lambda what, done, total: say(f"{what} {done}/{total}" if total else what),
        )
        for line in described(folder):
            console.tell(line)
        bundle = open_bundle(options.bundle)
        data, model = read_data(folder, bundle.tokenizer, bundle.context_length), read_model(bundle)
        say("how well the start does")
        tasks, main = results.validation_tasks(folder)
        start = results.measure(load(options.bundle), tasks[main])
        say("how fast this machine is")
        machine = read_machine()
    wishes = Wishes(options.epochs, options.minutes, options.batch_size)
    plan = choose(data, model, machine, start, wishes)
    text = configuration(
        plan,
        data,
        model,
        machine,
        bundle=options.bundle,
        folder=folder,
        here=options.out,
        seed=options.seed,
        headline=results.headline(tasks, main),
    )
    note = {**note, "folder": str(folder.resolve()), "table": [asdict(choice) for choice in plan.table]}
    _write_note(options.out, note)
    with whole_file(options.out / FILE) as partial:
        partial.write_text(text, encoding="utf-8")
    return note


def _show(table: Sequence[Choice], file: Path, console: Console) -> None:
    shown = Table(title="chosen", title_justify="left")
    for name in ("", "value", "why"):
        shown.add_column(name, overflow="fold")
    for choice in table:
        shown.add_row(choice.name, choice.value, choice.why)
    console.print(shown)
    console.tell(f"written as {file}; to choose otherwise, change a copy of it and run: {_train(file, 'COPY.py')}")


def _run(options: Options, console: Console) -> Outcome:
    run = load_config(str(options.out / FILE))
    try:
        with ProgressWatcher(console, run.name, lines=10) as watcher:
            return train(run, options.out / RUN, watcher=watcher, evaluators=evaluators(run))
    except OtherConfiguration:
        file = options.out / FILE
        raise JclipError(
            f"{file} was changed after its run began: run it as it is now with `{_train(file)}`, or undo the change"
        ) from None
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise JclipError(
            f"the devices have too little memory: double micro_batches in {options.out / FILE}, which changes no "
            "figure, and start again"
        ) from None


def _settle(options: Options, data: Path, ended: Outcome, table: Sequence[Choice]) -> results.Outcome:
    workdir = options.out / RUN
    trained = results.trained_bundle(workdir, ended.bundles)
    splits = [VALID, *(["test"] if "test" in open_folder(data).info.splits else [])]
    found, sections = results.settle(options.bundle, trained, data, splits, options.out)
    results.write_report(options.out, found, read_journal(workdir / "metrics.jsonl"), table, sections)
    return found


def _tell(options: Options, data: Path, found: results.Outcome, console: Console) -> None:
    best = options.out / results.BEST
    if options.json:
        before, trained = found.before.tests[found.main].figures, found.trained.tests[found.main].figures
        print_json(
            {
                "bundle": str(best),
                "kept": "trained" if found.improved else "start",
                "start": before,
                "trained": trained,
                "configuration": str(options.out / FILE),
                "report": str(options.out / results.PAGE),
            },
            indent=2,
        )
        return
    for table in page.tables(found.trained, found.before):
        Console().print(terminal(table))
    (recall, after), (first, then) = found.figure("mean_recall"), found.figure("t2i_r1")
    figures = f"mean recall {recall:.1%} -> {after:.1%}, R@1 from text to picture {first:.1%} -> {then:.1%}"
    said = f"Better on the validation split: {figures}." if found.improved else f"{results.NOT_BETTER} ({figures})"
    for line in (
        said,
        f"Found pictures, and how it learned: {options.out / results.PAGE}",
        f"The {'trained' if found.improved else 'starting'} model is {best}. To use it:",
        "  " + shlex.join(["jclip", "eval", "retrieval", str(best), str(data), "--split", VALID]),
    ):
        console.tell(line)


def _train(file: Path, name: str = "") -> str:
    """The command that runs a configuration, or one of another name in its folder, in a folder of its own."""
    return shlex.join(["jclip", "train", str(file.with_name(name or file.name)), "--workdir", "another"])


def _write_note(out: Path, note: dict[str, Any]) -> None:
    with whole_file(out / NOTE, replace=True) as partial:
        partial.write_text(as_json(note, indent=1) + "\n", encoding="utf-8")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
