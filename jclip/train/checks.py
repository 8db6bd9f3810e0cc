"""Checks of a run before anything is built or read: types, ranges, names, rules, and settings that must agree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jclip import rules
from jclip.bundle import check_inputs, open_bundle
from jclip.config import check_types
from jclip.errors import JclipError
from jclip.models.build import shapes
from jclip.names import check_name
from jclip.ranges import check_ranges
from jclip.stages import Stage
from jclip.train.configuration import Run
from jclip.train.evaluations import EvaluationConfig
from jclip.train.layout import layout, whole_path


def check(run: Run) -> None:
    """Checks everything that needs no file. Raises JclipError with the field and the correction."""
    check_types(run)
    check_names(run)
    check_ranges(run)
    if not run.stages:
        raise JclipError(f"run {run.name!r} has no stages: give it at least one")
    _check_distinct(run.name, "stages", [stage.name for stage in run.stages])
    for stage in run.stages:
        _check_stage(run, stage)
    _check_evaluations(run)
    parameters = _parameters(run)
    rules.match(run.starts_from, parameters, what="starts_from")
    for stage in run.stages:
        _check_trained(run, stage, parameters)


def check_names(run: Run) -> None:
    """Checks the names of a run, its stages and its evaluations, which become names of folders and figures.

    Raises JclipError, with the field, if a name is not a valid folder name.
    """
    check_name("name", run.name)
    named: dict[str, Sequence[Stage | EvaluationConfig]] = {"stages": run.stages, "evaluations": run.evaluations}
    for kind, some in named.items():
        for number, one in enumerate(some):
            check_name(f"{kind}.{number}.name", one.name)


def check_starting_points(run: Run) -> None:
    """Checks the bundles from which a new run starts against its model; reads no parameters.

    Raises JclipError if a bundle is missing or damaged, lacks a parameter, or has it in another shape.
    """
    wanted = _parameters(run)
    sources = rules.match(run.starts_from, wanted, what="starts_from")
    for folder in dict.fromkeys(folder for folder in sources.values() if folder):
        if not Path(folder).is_dir():
            raise JclipError(
                f"starts_from: bundle {folder} does not exist: make it first, or give another bundle or ''"
            )
        try:
            found = rules.paths_of(open_bundle(folder).params)
        except JclipError as error:
            raise JclipError(f"starts_from: {error}") from None
        for path in (path for path, source in sources.items() if source == folder):
            if path not in found:
                raise JclipError(f"starts_from: {folder} has no parameter {path}: give it another bundle, or ''")
            if found[path].shape != wanted[path].shape:
                raise JclipError(
                    f"starts_from: {folder}: {path} has shape {found[path].shape}, but this model needs "
                    f"{wanted[path].shape}: give it another bundle, or ''"
                )


def warn_of_small_training(stage: Stage, trains: frozenset[str]) -> list[str]:
    """Returns a warning if a stage trains no parameter of a tower."""
    if any(path.startswith(("image/", "text/")) for path in trains):
        return []
    return [
        f"stage {stage.name!r} trains only {' and '.join(sorted(trains))}: its loss can fall a little, but the "
        "features of images and texts do not change. Let `trains` match parameters of a tower"
    ]


def _check_stage(run: Run, stage: Stage) -> None:
    where = f"stage {stage.name!r}"
    if not stage.data:
        raise JclipError(f"{where} has no data: give it at least one source")
    for source in stage.data:
        if source.gives is not stage.objective.reads:
            raise JclipError(
                f"{where} ({stage.objective.title}) reads {stage.objective.reads.called()}, but "
                f"{type(source).__name__} is {source.gives.called()}"
            )
    if stage.cache and not stage.objective.caches:
        raise JclipError(f"{where}: {stage.objective.title} has no frozen tower to cache: omit cache")
    if stage.batch_size % stage.micro_batches:
        raise JclipError(
            f"{where}: micro_batches={stage.micro_batches} does not divide a batch of {stage.batch_size}: choose one "
            "of its divisors"
        )
    if stage.bucket_window > 1 and not stage.buckets:
        raise JclipError(f"{where}: bucket_window sorts texts into buckets: set buckets, or bucket_window to 1")
    if above := [bucket for bucket in stage.buckets if bucket > stage.context_length]:
        raise JclipError(
            f"{where}: buckets has {above[0]}, but no text is longer than context_length, {stage.context_length}: give "
            "shorter lengths"
        )
    check_inputs(run.model, run.preprocessing, stage.context_length, f"{where}: ")  # its bundle holds them


def _check_evaluations(run: Run) -> None:
    names = [one.name for one in run.evaluations]
    _check_distinct(run.name, "evaluations", names)
    if run.best and names and run.best.partition("/")[0] not in names:
        raise JclipError(
            f"best is {run.best!r}, but the evaluations are {', '.join(names)}: choose a figure of one of them"
        )
    if run.patience and not (run.best and run.evaluate_every):
        raise JclipError(
            f"patience is {run.patience}, but nothing is compared during a stage: set best and evaluate_every, or "
            "patience to 0"
        )


def _check_distinct(run: str, kind: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise JclipError(f"run {run!r} has two {kind} named {name!r}: names must differ")


def _check_trained(run: Run, stage: Stage, parameters: dict[str, Any]) -> None:
    """Checks a stage's rules against the model's parameters, and its objective against what trains."""
    trains = layout(stage, parameters, run.model.towers).trains
    stage.objective.check(stage, run.model, trains)
    factors = rules.match(stage.optimizer.multipliers, parameters, what=f"stage {stage.name!r}: multipliers")
    if not stage.optimizer.learning_rate or not any(factors[whole_path(path)] for path in trains):
        raise JclipError(
            f"stage {stage.name!r} learns nothing: the learning rate of every trained parameter is 0. Raise "
            "optimizer.learning_rate, or the multipliers"
        )


def _parameters(run: Run) -> dict[str, Any]:
    """Returns {path: shape} of the whole model."""
    return rules.paths_of(shapes(run.model)["params"])
