"""From facts to a plan: the values of published recipes, and reasons for each choice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.finetune.choices import Wishes, choose, epochs_of, learning_rate
from jclip.finetune.facts import DataFacts, Machine, ModelFacts, Start, TowerFacts
from jclip.models.towers import transformer_bytes

GIB = 2**30
B16 = ModelFacts(
    image=TowerFacts(86_000_000, 86_000_000, 197, transformer_bytes(197, 768, 12, 12), 12),
    text=TowerFacts(102_000_000, 85_000_000, 52, transformer_bytes(52, 768, 12, 12), 12),
    context_length=52,
)
DEMO = ModelFacts(
    image=TowerFacts(1_800_000, 1_800_000, 5, transformer_bytes(5, 256, 4, 2), 2),
    text=TowerFacts(3_100_000, 400_000, 16, transformer_bytes(16, 128, 2, 2), 2),
    context_length=16,
    white=True,
)
LAPTOP = Machine("cpu", 1, 2, 8 * GIB, "free", rate=50e9)
EIGHT = Machine("gpu", 8, 64, 64 * GIB, "reported", rate=8 * 100e12)
FEW = DataFacts(train=270, valid=30, pairs=270, distinct=100, usual=8, longest=10)
MUGE = DataFacts(train=129_380, valid=29_806, pairs=250_314, distinct=5_000, usual=14, longest=40)
POOR, GOOD = Start(0.31, 0.195), Start(0.71, 0.001)


def why(plan, name):
    return next(choice.why for choice in plan.table if choice.name == name)


def test_eight_gpus_and_muge_are_the_papers_recipe():
    plan = choose(MUGE, B16, EIGHT, GOOD)
    # (64 GiB - 16 B x 188 M) / 107,912,016 B a pair = 608 pairs: 512 on each of 8; table 9 has 12,800 on 32.
    assert transformer_bytes(197, 768, 12, 12) + transformer_bytes(52, 768, 12, 12) == 107_912_016
    assert (plan.batch_size, plan.micro_batches) == (4_096, 1)
    (stage,) = plan.stages
    assert (stage.image, stage.learning_rate, stage.epochs) == (True, 5e-5, 6)
    assert (plan.dtype, plan.muon, plan.weight_decay) == ("bfloat16", False, 1e-3)
    assert plan.policy and plan.auto_augment and plan.workers == 8
    assert plan.buckets == (16, 40)
    assert "estimated, not measured" in why(plan, "memory") and "reported" in why(plan, "memory")


def test_a_small_model_with_nothing_to_lose():
    plan = choose(FEW, DEMO, LAPTOP, POOR)
    (stage,) = plan.stages
    assert stage.image and plan.muon and stage.learning_rate == 2e-3 and stage.epochs == 60
    assert plan.batch_size == 64 and stage.steps(270, plan.batch_size) == 254  # 60 x 270 / 64 = 253.1
    assert (plan.evaluations, plan.patience) == (12, 5)
    assert plan.flip == 0.5 and not plan.policy and plan.dtype == "float32" and plan.workers == 0
    assert plan.buckets == (8,)  # and 16, all there is
    # 6 x (400,000 x 8 + 1,800,000 x 5) = 73.2 MFLOP a pair; 60 x 270 pairs at 50 GFLOP/s are 23.7 s.
    assert plan.minutes == pytest.approx(60 * 270 * 73.2e6 / 50e9 / 60)
    assert "31.0%, chance 19.5%" in why(plan, "trains")


def test_a_large_model_that_knows_little_keeps_the_papers_optimizer():
    plan = choose(FEW, B16, replace(EIGHT, devices=1), POOR)
    assert not plan.muon and plan.stages[0].image
    # skill (0.31 - 0.195) / 0.805 = 0.143: 5e-5 x (64 / 1024) ** 0.286
    assert plan.stages[0].learning_rate == pytest.approx(5e-5 * (1 / 16) ** 0.2857, rel=0.02)


def test_a_good_start_and_few_pairs_go_in_two_stages():
    plan = choose(FEW, B16, replace(EIGHT, devices=1), GOOD)
    frozen, everything = plan.stages
    assert (frozen.image, everything.image) == (False, True)
    assert frozen.epochs == everything.epochs == 30
    assert frozen.learning_rate == 3.1e-6 and everything.learning_rate == 6.2e-7  # 5e-5 x 64 / 1024, and a fifth
    assert plan.weight_decay == 0.1


def test_a_machine_too_slow_for_both_towers_trains_the_text_alone():
    plan = choose(replace(FEW, train=2_700, pairs=2_700), B16, LAPTOP, GOOD)
    (stage,) = plan.stages
    assert (stage.name, stage.image, stage.cached) == ("text-alone", False, True)
    assert plan.flip == 0 and not plan.policy
    # 6 x 85 M x 8 tokens = 4.08 GFLOP a pair: 60 minutes hold 16.3 epochs of 2,700.
    assert stage.epochs == pytest.approx(60 * 60 * 50e9 / 4.08e9 / 2_700, abs=0.01)
    assert plan.minutes == pytest.approx(60, rel=0.01)


def test_given_values_replace_choices():
    plan = choose(FEW, DEMO, LAPTOP, POOR, Wishes(epochs=5, batch_size=30))
    assert plan.stages[0].epochs == 5 and plan.batch_size == 30 and plan.stages[0].steps(270, 30) == 45
    assert why(plan, "epochs") == why(plan, "batch") == "as given"
    short = choose(FEW, DEMO, LAPTOP, POOR, Wishes(minutes=0.1))
    assert short.minutes == pytest.approx(0.1, rel=0.01) and "0.1 minutes" in why(short, "epochs")
    for wishes, message in (
        (Wishes(epochs=0), "--epochs 0 is not possible"),
        (Wishes(minutes=float("nan")), "--minutes nan"),
        (Wishes(batch_size=271), "give 2 to 270"),
        (Wishes(batch_size=1), "give 2 to 270"),
    ):
        with pytest.raises(JclipError, match=message):
            choose(FEW, DEMO, LAPTOP, POOR, wishes)
    with pytest.raises(JclipError, match="split over 8 devices"):
        choose(FEW, DEMO, replace(LAPTOP, devices=8), POOR, Wishes(batch_size=30))


def test_batches_beyond_the_memory_are_encoded_in_parts():
    small = Machine("gpu", 1, 8, 12 * GIB, "reported", rate=30e12)
    plan = choose(replace(MUGE, train=2_700, pairs=2_700), B16, small, POOR)
    # (12 GiB - 3.0 GB) / 107.9 MB = 91 pairs: 64 at once, of a batch of 256.
    assert (plan.batch_size, plan.micro_batches) == (256, 4)
    assert why(plan, "memory").startswith("estimated") and "recomputed" not in why(plan, "memory")
    tight = choose(replace(MUGE, train=2_700, pairs=2_700), B16, replace(small, memory=4 * GIB), POOR)
    assert tight.micro_batches > 1 and why(tight, "memory").endswith("if activations are recomputed")
    with pytest.raises(JclipError, match="use a smaller bundle"):
        choose(MUGE, B16, replace(small, memory=GIB), POOR)
    resnet = replace(B16, image=replace(B16.image, layers=0), has_statistics=True)
    assert choose(MUGE, resnet, small, POOR).micro_batches == 1  # batch norm needs the whole batch


def test_captions_that_name_directions_or_colours_limit_the_augmentation():
    assert choose(replace(FEW, one_way=0.2), DEMO, LAPTOP, POOR).flip == 0
    many = replace(MUGE, colours=0.4)
    plan = choose(many, B16, EIGHT, GOOD)
    assert plan.policy and not plan.auto_augment and "40% of the captions name a colour" in why(plan, "augmentation")


@pytest.mark.parametrize(
    ("parameters", "published"),
    [(188e6, (2e-5, 5e-5)), (407e6, (2e-5, 6e-5)), (958e6, (6e-6, 2e-5))],  # B/16, L/14, H/14 in table 9
)
def test_the_learning_rate_agrees_with_table_9(parameters, published):
    low, high = published
    assert low <= learning_rate(int(parameters), 4_096, 1.0) <= high


def test_the_learning_rate_agrees_with_cn_clips_repository():
    assert learning_rate(188_000_000, 1_024, 1.0) == 5e-5  # the scripts
    assert learning_rate(188_000_000, 48, 1.0) == pytest.approx(3e-6, rel=0.25)  # the notebook
    assert learning_rate(188_000_000, 96, 0.0) == 5e-5  # nothing to lose
    assert learning_rate(5_000_000, 64, 0.0) < 1e-3 == learning_rate(1_000_000, 64, 0.0)


def test_epochs_depend_on_the_number_of_pairs():
    assert [epochs_of(pairs) for pairs in (2, 300, 20_000, 10**9)] == [60, 60, 20, 3]


@given(
    pairs=st.integers(8, 10**7),
    devices=st.sampled_from([1, 2, 6, 8]),
    memory=st.integers(8, 80),
    skill=st.floats(0, 1),
    platform=st.sampled_from(["cpu", "gpu", "tpu"]),
    model=st.sampled_from([B16, DEMO]),
)
def test_every_plan_can_run(pairs, devices, memory, skill, platform, model):
    data = replace(FEW, train=pairs, pairs=pairs)
    machine = Machine(platform, devices, 8, memory * GIB, "given", rate=1e12)
    plan = choose(data, model, machine, Start(skill, 0.0))
    assert plan.batch_size % (devices * plan.micro_batches) == 0
    assert 2 <= plan.batch_size <= pairs
    assert all(stage.epochs >= 1 and stage.learning_rate > 0 for stage in plan.stages)
    assert 1 <= plan.patience <= plan.evaluations <= 20
    assert len({choice.name for choice in plan.table}) == len(plan.table)
    assert all(choice.value and choice.why for choice in plan.table)


def test_skill_by_hand():
    assert Start(0.6, 0.2).skill == pytest.approx(0.5)
    assert (Start(0.1, 0.2).skill, Start(1.0, 0.2).skill, Start(1.0, 1.0).skill) == (0.0, 1.0, 0.0)
