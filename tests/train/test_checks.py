"""Errors in a run are found before anything is built: words, numbers, rules, and starting points."""

import re
import typing
from dataclasses import replace
from pathlib import Path

import pytest

from jclip.bundle import load_bundle, save_bundle
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.data.sources.synthetic import SyntheticPairs, SyntheticParallel
from jclip.errors import JclipError
from jclip.evaluators import Probe
from jclip.images.on_device import Augmentation
from jclip.images.on_host import HostAugmentation
from jclip.losses.contrastive import ContrastiveLoss
from jclip.optimizer import Optimizer
from jclip.parallel.mesh import MeshShape
from jclip.ranges import Range
from jclip.stages import Budget, Stage
from jclip.tokenizers.text import load_tokenizer
from jclip.train.assembly import devices_of
from jclip.train.checks import check, check_starting_points
from jclip.train.configuration import Monitor, Run
from jclip.train.identity import check_same, identity
from jclip.train.objectives.contrastive import Contrastive
from jclip.train.objectives.teacher_learning import TeacherLearning
from jclip.train.planning.stage_plan import plan_stages

NAN, INF = float("nan"), float("inf")


def changed(value, name, new):
    """Returns a dataclass with another value at a dotted name."""
    first, _, rest = name.partition(".")
    if isinstance(value, tuple):
        inner = changed(value[int(first)], rest, new) if rest else new
        return (*value[: int(first)], inner, *value[int(first) + 1 :])
    return replace(value, **{first: changed(getattr(value, first), rest, new) if rest else new})


def test_a_valid_run_passes(recipe):
    check(recipe)
    check_starting_points(recipe)


@pytest.mark.parametrize(
    ("name", "word", "choices"),
    [
        ("stages.1.optimizer.name", "adam", "'adamw', 'muon'"),
        ("stages.1.optimizer.schedule", "cosin", "'cosine', 'linear', 'constant'"),
        ("stages.1.objective.loss.kind", "softmx", "'softmax', 'sigmoid'"),
        ("stages.1.objective.loss.impl", "rings", "'dense', 'chunked', 'ring'"),
        ("stages.1.objective.host_augmentation.auto_augment", "v0", "'none', 'original'"),
        ("stages.1.objective.host_augmentation.interpolation", "nearest", "'bilinear', 'bicubic'"),
        ("stages.1.objective.augmentation.outside", "grey", "'edge', 'white', 'black'"),
        ("preprocessing.resize", "stretch", "'squash', 'crop'"),
        ("dtype", "float16", "'float32', 'bfloat16'"),
        ("remat", "all", "'auto', 'none', 'dots', 'layers'"),
    ],
)
def test_a_wrong_word_is_named_with_the_choices(recipe, name, word, choices):
    with pytest.raises(JclipError, match=rf"^{re.escape(name)} is '{word}', but must be one of {choices}$"):
        check(changed(recipe, name, word))


@pytest.mark.parametrize(
    ("name", "values", "mend"),
    [
        ("max_replicated", (NAN, -0.1, 1.1), "a share, 0 to 1"),
        ("log_every", (-1,), "0 or more"),
        ("checkpoint_every", (-1,), "0 or more"),
        ("evaluate_every", (-5,), "0 or more"),
        ("keep_checkpoints", (0, -1), "1 or more"),
        ("monitor.profile_steps", (-1,), "0 or more"),
        ("monitor.profile_from", (-1,), "0 or more"),
        ("monitor.peak_tflops", (0.0, NAN, INF), "a number above 0"),
        ("stages.0.batch_size", (1, 0), "2 or more: a pair alone has no negatives"),
        ("stages.0.context_length", (2,), "3 or more: two are for the special tokens"),
        ("stages.0.max_unreadable", (-1,), "0 or more"),
        ("stages.1.objective.patch_dropout", (1.0, NAN), "0 or more, and less than 1"),
        ("stages.0.buckets", ((0,),), "1 or more"),
        ("stages.0.bucket_window", (0,), "1 or more"),
        (
            "stages.0.language_temperature",
            (0.0, -1.0, 0.5, INF, NAN),
            "1 or more: below 1 rare languages would be rarer still",
        ),
        ("stages.0.workers", (-1,), "0 or more"),
        ("stages.1.objective.loss.chunk", (0,), "1 or more"),
        ("stages.0.budget", (Budget(epochs=NAN), Budget(epochs=-1.0)), "a number above 0"),
        ("stages.0.budget", (Budget(steps=0), Budget(examples=-1)), "1 or more"),
        ("stages.0.micro_batches", (0, -2), "1 or more"),
        ("stages.0.optimizer.layer_decay", (((".*", 0.0),), ((".*", 1.5),)), "a number above 0, 1 at most"),
        ("seed", (-1, 2**32), "a whole number from 0 to 4294967295"),
        ("evaluations", ((Probe("p", "x", seeds=0),),), "1 or more"),
        ("evaluations", ((Probe("p", "x", shots=(0, -1)),),), "0 or more"),
        ("stages.0.data.0.weight", (0.0, NAN, INF), "a number above 0"),
        ("stages.1.objective.augmentation.flip", (2.0,), "a share, 0 to 1"),
        ("stages.1.objective.host_augmentation.flip", (2.0, -0.1, NAN), "a share, 0 to 1"),
        (
            "stages.1.objective.host_augmentation.crop_scale",
            ((0.0, 1.0), (0.5, 1.1), (NAN, 1.0)),
            "a share above 0, 1 at most",
        ),
        ("stages.1.objective.host_augmentation.crop_ratio", ((0.0, 1.0), (1.0, INF)), "a number above 0"),
        ("stages.1.objective.augmentation.hue", (-1.0, NAN), "0 or more"),
        ("stages.0.optimizer.learning_rate", (-1e-3, NAN, INF), "0 or more"),
        ("stages.0.optimizer.warmup_steps", (-1,), "0 or more"),
        ("stages.0.optimizer.weight_decay", (-0.1, NAN, INF), "0 or more"),
        ("stages.0.optimizer.multipliers", (((".*", NAN),), ((".*", -1.0),)), "0 or more"),
        ("stages.0.optimizer.beta1", (1.0, -0.1, NAN), "0 or more, and less than 1"),
        ("stages.0.optimizer.beta2", (1.0,), "0 or more, and less than 1"),
        ("stages.0.optimizer.eps", (0.0, NAN), "a number above 0"),
        ("stages.0.optimizer.clip_norm", (0.0, -1.0, NAN), "a number above 0, or None for no clipping"),
    ],
)
def test_an_impossible_number_is_named_with_its_range(chinese_clip, name, values, mend):
    for value in values:
        with pytest.raises(JclipError, match=rf"^{re.escape(name)}[a-z0-9.]* is [a-z0-9.-]*, but must be {mend}$"):
            check(changed(chinese_clip, name, value))


def test_buckets_that_would_do_nothing(chinese_clip):
    length = chinese_clip.stages[0].context_length
    check(changed(chinese_clip, "stages.0.buckets", (length,)))
    with pytest.raises(JclipError, match=rf"buckets has {length + 1}, but no text is longer than .*: give shorter"):
        check(changed(chinese_clip, "stages.0.buckets", (8, length + 1)))
    with pytest.raises(JclipError, match="bucket_window sorts texts into buckets: set buckets, or bucket_window to 1"):
        check(changed(chinese_clip, "stages.0.bucket_window", 4))


ELSEWHERE = {  # (class, field) of numbers that declare no range, because something else checks them
    ("MeshShape", "data"): "make_mesh",
    ("MeshShape", "fsdp"): "make_mesh",
    ("MeshShape", "tensor"): "make_mesh",
    ("Stage", "last_layers"): "layout",
}


def test_every_number_declares_its_range():
    """Whoever adds a number must declare its range."""
    kinds = (Run, Monitor, Stage, Budget, Optimizer, MeshShape, Contrastive, TeacherLearning, ContrastiveLoss, Probe)
    kinds += (Augmentation, HostAugmentation, SyntheticPairs, SyntheticParallel, PairFolder, ParallelFolder)
    loose = {
        (kind.__name__, name)
        for kind in kinds
        for name, hint in typing.get_type_hints(kind, include_extras=True).items()
        if _loose_number(hint)
    }
    assert loose == ELSEWHERE.keys()


def _loose_number(hint):
    if typing.get_origin(hint) is typing.Annotated:
        return not any(isinstance(extra, Range) for extra in hint.__metadata__) and _loose_number(hint.__origin__)
    return hint in (int, float) or any(_loose_number(inner) for inner in typing.get_args(hint))


@pytest.mark.parametrize(
    ("name", "rules", "message"),
    [
        ("starts_from", (("imgae/.*", "x"), (".*", "")), "starts_from: rule 'imgae/.*' matches no parameter"),
        ("starts_from", (("image/.*", ""),), "starts_from: no rule matches"),
        ("stages.1.trains", (("txet/.*", True), (".*", False)), "stage '.*': trains: rule 'txet/.*' matches no param"),
    ],
)
def test_a_misspelt_rule_stops_the_plan(recipe, name, rules, message):
    with pytest.raises(JclipError, match=message):
        devices_of(changed(recipe, name, rules))


def test_what_a_stage_reads_must_fit_the_towers(chinese_clip):
    with pytest.raises(JclipError, match="context_length is 600, but the text tower has positions for 512 tokens"):
        check(changed(chinese_clip, "stages.1.context_length", 600))
    with pytest.raises(JclipError, match="preprocessing.size is 48, but the image tower reads images of 32"):
        check(changed(chinese_clip, "preprocessing.size", 48))
    message = r"stage 'everything' \(contrastive\) reads images with captions, but SyntheticParallel is parallel text"
    with pytest.raises(JclipError, match=message):
        check(changed(chinese_clip, "stages.1.data.0", SyntheticParallel()))


def test_a_plan_needs_no_bundles(chinese_clip):
    run = replace(chinese_clip, starts_from=((".*", "nowhere"),))
    assert len(plan_stages(run, devices_of(run))) == 2


def test_where_a_run_starts_from(recipe, tmp_path):
    """Bundles are compared with the model without reading arrays. A bundle needs only what a rule takes from it."""
    if not isinstance(recipe.stages[0].objective, TeacherLearning):
        with pytest.raises(JclipError, match="starts_from: bundle nowhere does not exist: make it first"):
            check_starting_points(replace(recipe, starts_from=(("image/.*", "nowhere"), (".*", ""))))
        return
    english, other = recipe.stages[0].objective.bundle, tmp_path / "other"
    check_starting_points(replace(recipe, starts_from=(("image/.*", english), (".*", ""))))
    message = f"starts_from: {english} has no parameter text/.*: give it another bundle, or ''"
    with pytest.raises(JclipError, match=message):
        check_starting_points(replace(recipe, starts_from=((".*", english),)))
    wider = replace(recipe.model, image=replace(recipe.model.image, mlp_ratio=2))
    with pytest.raises(JclipError, match=r"image/layers/mlp/.* has shape .*, but this model needs .*: give it another"):
        check_starting_points(replace(recipe, model=wider, starts_from=(("image/.*", english), (".*", ""))))
    save_bundle(load_bundle(english), other)
    (other / "config.json").unlink()
    with pytest.raises(JclipError, match="starts_from: .*other is not a bundle"):
        check_starting_points(replace(recipe, starts_from=((".*", str(other)),)))


def test_a_resumed_run_may_change_the_form_of_its_loss(chinese_clip, tmp_path):
    """A run that moves to a pod may change to the ring loss."""
    words = load_tokenizer(Path(chinese_clip.tokenizer))
    before = identity(changed(chinese_clip, "stages.0.objective.loss.impl", "dense"), words)
    moved = changed(changed(chinese_clip, "stages.0.objective.loss.impl", "ring"), "stages.0.objective.loss.chunk", 7)
    check_same(before, identity(moved, words), tmp_path)
    with pytest.raises(JclipError, match=r"stages\.0\.objective\.loss\.kind: 'softmax', now 'sigmoid'"):
        check_same(before, identity(changed(moved, "stages.0.objective.loss.kind", "sigmoid"), words), tmp_path)


def test_a_run_of_another_version_is_refused_in_a_line(chinese_clip, tmp_path):
    words = load_tokenizer(Path(chinese_clip.tokenizer))
    now = identity(chinese_clip, words)
    before = {"config": {"stages": [{"objective": "contrastive"}]}, "contents": {}}
    with pytest.raises(JclipError, match="holds a run of another version of jclip, which this one cannot resume: cho"):
        check_same(before, now, tmp_path)


def test_a_resumed_run_reads_the_same_examples_by_whatever_means(chinese_clip, tmp_path):
    words, before = load_tokenizer(Path(chinese_clip.tokenizer)), changed(chinese_clip, "stages.0.buckets", (8, 12))
    means = {"workers": 3, "cache": "elsewhere", "max_unreadable": 5}
    check_same(identity(before, words), identity(changed_all(before, means), words), tmp_path)
    for name, value in {
        "bucket_window": 4,
        "buckets": (8,),
        "objective.captions": "all",
        "language_temperature": 2.0,
        "data.0.weight": 2.0,
        "objective.host_augmentation": HostAugmentation(),
    }.items():
        with pytest.raises(JclipError, match=rf"stages\.0\.{name}"):
            check_same(identity(before, words), identity(changed_all(before, {name: value}), words), tmp_path)


def changed_all(run, values):
    """Returns the run with other values in its first stage."""
    for name, value in values.items():
        run = changed(run, f"stages.0.{name}", value)
    return run
