"""What a run reports about its data before it begins, and data from which nothing can be learned."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jclip import rules
from jclip.bundle import Bundle, save_bundle
from jclip.configs.loading import load_config
from jclip.data.inspecting.reading import LOOKED_AT, source_facts
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.records import Translation
from jclip.data.sources.synthetic import SyntheticPairs
from jclip.data.sources.writing import write_pairs, write_parallel
from jclip.demo.emoji.place import MARKER
from jclip.demo.emoji.sources import EmojiPairs, EmojiParallel
from jclip.errors import JclipError
from jclip.losses.contrastive import ContrastiveLoss
from jclip.models.build import init_variables
from jclip.tokenizers.text import load_tokenizer
from jclip.train.checks import check, warn_of_small_training
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from jclip.train.planning.reduced import reduce
from jclip.train.preparing import begin, sample_data
from tests.train.assembled import shapes_of
from tests.train.runs import CONFIGS, RECIPES, png


@pytest.fixture
def stage(chinese_clip):
    return chinese_clip.stages[0]


def check_data(stage, found):
    return stage.objective.check_data(stage, found)


def with_objective(stage, **changes):
    return replace(stage, objective=replace(stage.objective, **changes))


def test_pictures_with_captions(stage, tmp_path):
    folder = tmp_path / "a[1]"
    write_pairs(folder, (StoredPair(png(n), (f"红{n}\x1b[2J",), ("zh",)) for n in range(100)))
    found = source_facts(stage.name, PairFolder(str(folder)))
    assert (found.records, found.texts, found.images, found.whole) == (100, LOOKED_AT, LOOKED_AT, False)
    assert str(found) == (
        f"stage 'image-frozen' reads images with captions: PairFolder {str(folder)!r} split 'train': 100 records; "
        r"languages zh; such as '红0\x1b[2J' with an image of 32 x 32"
    )


def test_parallel_text(stage, tmp_path):
    write_parallel(tmp_path / "texts", [Translation(f"dog {n}", f"犬{n}", "ja" if n else "zh") for n in range(3)])
    found = source_facts(stage.name, ParallelFolder(str(tmp_path / "texts")))
    assert found.languages == (("ja", 2), ("zh", 1)) and found.whole
    assert str(found).endswith(": 3 records; languages ja 2, zh 1; such as 'dog 0' for '犬0'")


def test_data_that_are_not_there(stage, tmp_path):
    found = source_facts(stage.name, PairFolder(str(tmp_path / "gone")))
    assert found.records is None and "there is no such folder" in str(found)
    unbuilt = source_facts(stage.name, EmojiPairs(str(tmp_path / "emoji")), build=False)
    assert str(unbuilt).endswith("not built yet; the run builds it") and not (tmp_path / "emoji").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pairs.csv").touch()
    refused = source_facts(stage.name, EmojiPairs(str(tmp_path / "mine")), build=False)
    assert f"{tmp_path}/mine contains 'pairs.csv', but the emoji data set needs a folder of its own" in str(refused)


def pairs_of(folder, images, texts):
    """Returns a folder of pairs with the given ids of images and captions."""
    write_pairs(folder, (StoredPair(png(i), (f"t{t}",)) for i, t in zip(images, texts, strict=True)))
    return PairFolder(str(folder))


@pytest.mark.parametrize(
    ("images", "texts", "what"),
    [(range(6), [3] * 6, "caption"), ([3] * 6, range(6), "image"), ([0], [0], "caption")],
)
def test_pairs_of_which_none_is_anothers_negative_are_refused(chinese_clip, tmp_path, images, texts, what):
    stage = replace(chinese_clip.stages[1], data=(pairs_of(tmp_path / "pairs", images, texts),))
    message = rf"^stage 'everything' can learn nothing: all of its {len(images)} records have the same {what}, so no"
    run = replace(chinese_clip, stages=(chinese_clip.stages[0], stage))
    with pytest.raises(JclipError, match=message):  # before the first stage
        sample_data([shapes_of(run, index) for index in (0, 1)])


def test_data_of_which_only_some_is_looked_at_are_warned_of(stage, tmp_path):
    count = LOOKED_AT + 1
    found = source_facts(stage.name, pairs_of(tmp_path / "pairs", range(count), [7] * count))
    (warning,) = check_data(replace(stage, batch_size=2), [found])
    assert "all sampled records have the same caption" in warning


@pytest.mark.parametrize(
    ("duplicates", "how"),
    [
        ("mask", "which are not each other's negatives"),
        ("positives", "which are each other's positives"),
        ("ignore", "as each other's negatives"),
    ],
)
def test_a_batch_larger_than_the_data(stage, duplicates, how):
    found = [source_facts(stage.name, SyntheticPairs(count=count)) for count in (5, 6)]
    large = with_objective(replace(stage, batch_size=12), loss=ContrastiveLoss(duplicates=duplicates))
    assert check_data(large, found) == [
        "stage 'image-frozen': a batch of 12 is larger than the data of 11 records, so every batch repeats pairs, "
        f"{how}: lower batch_size to 11 or less"
    ]
    assert check_data(replace(large, batch_size=11), found) == []
    assert check_data(with_objective(large, captions="all"), found) == []  # there may be more of them than records


def test_every_stage_is_sampled_and_warned_of(chinese_clip):
    stages = tuple(replace(each, data=(SyntheticPairs(count=10),)) for each in chinese_clip.stages)
    run = replace(chinese_clip, stages=stages)
    reads, warnings = sample_data([shapes_of(run, index) for index in (0, 1)])
    assert [one.stage for one in reads] == [stage.name for stage in stages]
    assert len(warnings) == 2 and all("a batch of 16 is larger than the data of 10 records" in one for one in warnings)


@pytest.mark.slow
def test_a_run_begins_with_what_it_reads_and_what_is_odd(chinese_clip, tmp_path):
    stages = tuple(replace(each, data=(SyntheticPairs(count=10),)) for each in chinese_clip.stages)
    train(replace(chinese_clip, stages=stages), tmp_path / "run", stop_after=1)
    lines = read_journal(tmp_path / "run" / "metrics.jsonl")
    (reads,) = (line["reads"] for line in lines if line["kind"] == "data")
    assert [words.split(":")[0] for words in reads] == [
        f"stage {stage.name!r} reads images with captions" for stage in stages
    ]
    warnings = [line["message"] for line in lines if line["kind"] == "warning"]
    assert len(warnings) == 2 and all("a batch of 16 is larger than the data of 10 records" in one for one in warnings)


@pytest.mark.parametrize(("images", "texts"), [(range(8), [0, 1] * 4), ([0, 0, 0, 0, 1, 1, 1, 1], range(8))])
def test_pairs_that_are_alone_in_their_batch(stage, tmp_path, images, texts):
    found = [source_facts(stage.name, pairs_of(tmp_path / "pairs", images, texts))]
    assert found[0].alike == 12 / 28  # two kinds of four records: 2 * 6 of 28 couples
    two = replace(stage, batch_size=2)
    assert check_data(two, found) == [
        "stage 'image-frozen': about 43% of the pairs have no negative in their batch of 2, because many records "
        "share an image or a caption: raise batch_size"
    ]
    assert check_data(replace(stage, batch_size=4), found) == []  # 8 per cent
    assert check_data(with_objective(two, loss=ContrastiveLoss(duplicates="ignore")), found) == []
    other = source_facts(
        stage.name, SyntheticPairs(count=8)
    )  # whose records differ: (1/2)^2 of the couples are of the first
    assert "about 11% of the pairs" in check_data(two, [*found, other])[0]


def test_a_stage_that_trains_no_tower(stage):
    assert warn_of_small_training(stage, frozenset({"text/projection/kernel", "logit_scale"})) == []
    (warning,) = warn_of_small_training(stage, frozenset({"logit_scale"}))
    assert warning.startswith("stage 'image-frozen' trains only logit_scale: its loss can fall a little, but the")


def test_a_teacher_without_a_text_tower_to_teach_is_refused(tmp_path):
    run = reduce(load_config(str(CONFIGS / RECIPES[0])), tmp_path / "inputs")
    stage = replace(run.stages[0], trains=((r"image/.*", True), (r".*", False)))
    with pytest.raises(JclipError, match="learns nothing: teacher learning trains only the text tower"):
        check(replace(run, stages=(stage, *run.stages[1:])))


def test_rates_of_zero_are_refused(chinese_clip):
    first, second = chinese_clip.stages
    for optimizer in (
        replace(second.optimizer, learning_rate=0.0),
        replace(second.optimizer, multipliers=((".*", 0.0),)),
    ):
        with pytest.raises(JclipError, match="stage 'everything' learns nothing: the learning rate of every"):
            check(replace(chinese_clip, stages=(first, replace(second, optimizer=optimizer))))
    some = replace(second.optimizer, multipliers=(("image/.*", 0.0), (".*", 1.0)))
    check(replace(chinese_clip, stages=(first, replace(second, optimizer=some))))
    frozen = replace(first.optimizer, multipliers=(("image/.*", 1.0), (".*", 0.0)))  # of what does not train
    with pytest.raises(JclipError, match="stage 'image-frozen' learns nothing"):
        check(replace(chinese_clip, stages=(replace(first, optimizer=frozen), second)))


@pytest.mark.parametrize("source", [EmojiPairs, EmojiParallel])
@pytest.mark.parametrize(
    "what",
    ["captions.csv", "dataset_info.json", "emoji/mine.txt", "emoji/1.0.0/dataset_info.json", "wheels/mine.whl", "x/y"],
)
def test_a_source_that_builds_itself_refuses_a_folder_of_others(source, what, tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.demo.emoji.builder.fetch", None)  # nothing is fetched
    file = tmp_path / "mine" / what
    file.parent.mkdir(parents=True)
    file.write_text('{"name": "emoji"}')
    message = rf"^{tmp_path}/mine contains '{what.split('/')[0]}', but the emoji data set needs a folder of its own"
    with pytest.raises(JclipError, match=message):
        source(str(tmp_path / "mine")).open()
    assert [path.name for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file.name]


@pytest.mark.parametrize(
    "left", [(), (MARKER,), (MARKER, "emoji/incomplete.X_1.0.0/a"), ("wheels/tmp0/a",), (".DS_Store",)]
)
def test_a_source_builds_itself_where_it_had_begun(left, tmp_path, monkeypatch):
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def fetch(cache, only):
        raise JclipError("it would be fetched now")

    monkeypatch.setattr("jclip.demo.emoji.builder.fetch", fetch)
    with pytest.raises(JclipError, match="it would be fetched now"):
        EmojiPairs(str(tmp_path)).open()
    assert (tmp_path / MARKER).is_file()


def test_infinities_at_the_start_are_named_with_their_bundle(chinese_clip, tmp_path):
    params = init_variables(chinese_clip.model, jax.random.key(0))["params"]
    words = load_tokenizer(Path(chinese_clip.tokenizer))
    whole = Bundle(chinese_clip.model, jax.device_get(params), words, chinese_clip.preprocessing, 16)
    for path in ("image/post_norm/scale", "text/projection/kernel"):  # the image tower is frozen in the first stage
        leaves = rules.paths_of(whole.params)
        broken = np.array(leaves[path])
        broken.flat[0] = np.inf
        params = rules.tree_from_paths({**leaves, path: broken})
        save_bundle(replace(whole, params=params), tmp_path / "broken")
        run = replace(chinese_clip, starts_from=((".*", str(tmp_path / "broken")),))
        with pytest.raises(
            JclipError, match=rf"^starts_from: {tmp_path}/broken: {path} holds infinities or NaN, so no"
        ):
            begin(shapes_of(run))
