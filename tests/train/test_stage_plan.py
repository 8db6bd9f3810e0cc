"""Plans of the papers' recipes from shapes alone, checked against figures worked out by hand."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest

import jclip.train
from jclip.configs.loading import load_config
from jclip.errors import JclipError
from jclip.losses.contrastive import ContrastiveLoss
from jclip.parallel.mesh import MeshShape
from jclip.stages import Budget
from jclip.train.assembly import devices_of
from jclip.train.planning import stage_plan as planning
from tests.train.assembled import assembled, first_inputs

CONFIGS = Path(__file__).parents[2] / "configs"


def plan(run, **how):
    return planning.plan_stages(run, devices_of(run), **how)


def test_chinese_clip_b16():
    frozen, everything = plan(load_config(str(CONFIGS / "chinese_clip" / "vit_b_16.py")))
    assert (frozen.trainable, frozen.frozen) == (102_070_273, 86_192_640)
    assert (everything.trainable, everything.frozen) == (188_262_913, 0)
    assert frozen.steps == -(-44 * 200_000_000 // 32_768)
    # Forward pass of an image in ViT-B/16, by hand: patches, then 12 layers of projections, attention and perceptron.
    image = 2 * (196 * 768 * 768 + 12 * (197 * 12 * 768**2 + 2 * 197**2 * 768) + 768 * 512)
    text = 2 * (12 * (52 * 12 * 768**2 + 2 * 52**2 * 768) + 768 * 512)
    # The loss: logits once, and once each for the two gradients; the ring recomputes them in the backward pass.
    assert frozen.flops_per_step / frozen.batch_size == pytest.approx(image + 3 * text, rel=0.03)
    assert everything.flops_per_step / everything.batch_size == pytest.approx(3 * (image + text), rel=0.03)


def test_altclip():
    teacher, contrastive = plan(load_config(str(CONFIGS / "altclip" / "vit_l_14.py")))
    assert teacher.steps == 238_620
    assert teacher.trainable == 559_630_080  # all of the text tower except its projection
    assert contrastive.trainable == 559_630_080 + 768 * 768 + 1
    assert teacher.trainable + teacher.frozen == contrastive.trainable + contrastive.frozen == 864_186_113
    assert ("image/*", 303_966_208, False) in teacher.groups


def test_what_a_device_holds_by_hand():
    run = load_config(str(CONFIGS / "altclip" / "vit_l_14.py"))
    copied, split = (plan(replace(run, mesh=mesh))[0] for mesh in (MeshShape(), MeshShape(data=2, fsdp=4)))
    # Four bytes a parameter, eight more for Adam's slots of those that train; its count is small.
    everywhere = 4 * (864_186_113 + 2 * 559_630_080)
    assert copied.state_bytes == split.state_bytes == pytest.approx(everywhere, rel=1e-6)
    assert copied.device_state_bytes == copied.state_bytes
    # On every device: biases and norms of 24 layers in each tower, the norms around them, and the head's bias.
    text, image = 24 * 13 * 1024 + 4 * 1024 + 768, 24 * 13 * 1024 + 4 * 1024
    whole = 12 * text + 4 * image
    assert split.device_state_bytes == pytest.approx((everywhere - whole) / 4 + whole, rel=1e-5)
    assert split.device_step_bytes is None and split.seconds is None


def test_time_at_a_given_rate():
    (stage, _) = plan(load_config(str(CONFIGS / "altclip" / "vit_l_14.py")), tflops=100.0)
    assert stage.devices == 8
    assert stage.step_seconds == pytest.approx(stage.flops_per_step / (8 * 100e12))
    assert stage.seconds == pytest.approx(stage.step_seconds * 238_620)
    with pytest.raises(JclipError, match=r"0\.0 TFLOP/s is not possible"):
        plan(load_config(str(CONFIGS / "altclip" / "vit_l_14.py")), tflops=0.0)


def test_a_run_from_python(toy_run):
    found = jclip.train.plan(toy_run, compiled=False, tflops=1.0)
    assert found.stages == tuple(plan(toy_run, tflops=1.0)) and found.fit is None
    assert [one.stage for one in found.reads] == [stage.name for stage in toy_run.stages for _ in stage.data]
    assert found.replication.devices == 1 and found.replication.parts == ()


def test_memory_and_epochs_need_what_counts_them(toy_run, tmp_path):
    with pytest.raises(JclipError, match=r"--memory needs the compiler's figures: omit --no-compile \(in Python"):
        jclip.train.plan(toy_run, compiled=False, memory=1)
    stage = replace(toy_run.stages[0], budget=Budget(epochs=1))
    run = replace(toy_run, stages=(stage,), tokenizer=str(tmp_path / "none"))
    with pytest.raises(JclipError, match="none, to count epochs: set --tokenizer, or budgets in steps"):
        jclip.train.plan(run, compiled=False)


@pytest.mark.slow
def test_what_a_step_takes(chinese_clip):
    """The compiler's figure is less for a smaller batch, and at least the gradients of the trained parameters."""
    stage = chinese_clip.stages[0]
    small, large = (
        plan(replace(chinese_clip, stages=(replace(stage, batch_size=size),)), compiled=True)[0].device_step_bytes
        for size in (16, 128)
    )
    assert small < large / 2
    assert small > 0


@pytest.mark.slow
def test_remat_trades_memory_for_arithmetic_and_nothing_else(chinese_clip):
    """Set by the run's field: the loss and the gradients are equal, and the compiled step needs less memory."""
    text = replace(chinese_clip.model.text, layers=12)
    model = replace(chinese_clip.model, text=text, image=replace(chinese_clip.model.image, layers=12))
    objective = replace(chinese_clip.stages[1].objective, loss=ContrastiveLoss("dense"))
    stage = replace(chinese_clip.stages[1], batch_size=128, objective=objective)
    run = replace(chinese_clip, model=model, stages=(stage,), dtype="float32")
    kept, cheap, again = (_stepped(replace(run, remat=remat)) for remat in ("none", "dots", "layers"))
    for other in (cheap, again):
        assert other[0] == pytest.approx(kept[0], rel=1e-5)
        assert other[1] == pytest.approx(kept[1], rel=1e-4)
    assert again[2] < 0.7 * kept[2]
    assert again[2] < cheap[2] < kept[2]


def test_remat_costs_arithmetic(chinese_clip):
    """Set by the run's field: "layers" recomputes every layer's forward pass, "dots" no matmul of a projection."""
    run = replace(chinese_clip, stages=chinese_clip.stages[1:])
    none, dots, layers = (plan(replace(run, remat=remat))[0].flops_per_step for remat in ("none", "dots", "layers"))
    assert none <= dots < 1.1 * none
    assert 1.2 * none < layers < 1.4 * none


def _stepped(run):
    """Returns the loss, the norm of the gradients and the temporary memory of a run's first step."""
    part = assembled(run, devices=1)
    with jax.set_mesh(part.mesh):
        given = (*first_inputs(part), jax.random.key(0))
        step = part.compiled.lower(*given).compile()
        metrics = step(*given)[1]
    return float(metrics["loss"]), float(metrics["gradient_norm"]), step.memory_analysis().temp_size_in_bytes
