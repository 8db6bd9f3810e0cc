"""An objective from outside jclip: trained, sharded, moved to another mesh and loaded, with no change to its files.

It distils the features of a frozen image tower into a smaller one.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jclip
from jclip import Bundle, DualEncoder, DualEncoderConfig, JclipError, load_bundle, rules, tokenizers
from jclip.cli import main
from jclip.config import from_json, to_json
from jclip.data import Pair, PairExamples
from jclip.losses import l2_normalised
from jclip.models import init_variables, shapes
from jclip.train import (
    Budget,
    Context,
    HostAugmentation,
    MeshShape,
    Objective,
    Optimizer,
    Program,
    Run,
    encode_image,
    kind_of,
    place_whole,
    run,
)
from jclip.train.checks import check
from tests.train.assembled import assembled
from tests.train.runs import leaves, losses


@kind_of(Objective)
@dataclass(frozen=True)
class ImageDistillation(Objective):
    """Objective that teaches the image tower the directions of a frozen image tower's features.

    Attributes:
      bundle: the teacher's.
      model: the teacher's towers.
      weight: of the loss.
    """

    title: ClassVar[str] = "image distillation"
    reads: ClassVar[type] = Pair

    bundle: str
    model: DualEncoderConfig
    weight: float = 1.0

    def check(self, stage, model, trains):
        if self.model.embed_dim != model.embed_dim:
            raise JclipError(f"stage {stage.name!r}: the teacher has {self.model.embed_dim} features: choose another")

    def open(self):
        return load_bundle(self.bundle)

    def batches(self, make, opened):
        return make(lambda sources, decoder: PairExamples(sources, decoder(HostAugmentation())))

    def program(self, context: Context) -> Program:
        side, number = context.preprocessing.size, context.rows((), jnp.int32)
        batch = dict.fromkeys(("image_id", "text_id", "example"), number)
        batch["image"] = context.rows((side, side, 3), jnp.uint8)
        batch["text"] = context.rows((context.stage.context_length,), jnp.int32)
        place = jax.sharding.NamedSharding(context.mesh, jax.sharding.PartitionSpec())
        teacher = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            {"image": shapes(self.model)["params"]["image"]},
        )

        def loss(params, stats, constants, batch, key) -> Any:
            def features(towers, params):
                return l2_normalised(encode_image(towers, context.preprocessing, {"params": params}, batch["image"]))

            ours, theirs = features(context.towers, params), features(DualEncoder(self.model), constants["teacher"])
            cosine = (ours * theirs).sum(axis=1).mean()
            return self.weight * (1 - cosine), ({"cosine": cosine}, stats)

        return Program(loss, batch, {"teacher": teacher})

    def constants(self, opened, program):
        places = jax.tree.map(lambda leaf: leaf.sharding, program.constants["teacher"])
        return {"teacher": place_whole({"image": opened.params["image"]}, places)}


@pytest.fixture(scope="module")
def distillation(tmp_path_factory, chinese_clip):
    """Run of the objective over two axes of the mesh."""
    folder = tmp_path_factory.mktemp("teacher")
    model = replace(chinese_clip.model, image=replace(chinese_clip.model.image, layers=3))
    params = jax.device_get(init_variables(model, jax.random.key(3)))["params"]
    tokenizer = tokenizers.load(chinese_clip.tokenizer)
    jclip.save(Bundle(model, params, tokenizer, chinese_clip.preprocessing, 16), folder)
    stage = replace(
        chinese_clip.stages[0],
        name="distil",
        objective=ImageDistillation(str(folder), model),
        trains=((r"image/.*", True), (r".*", False)),
        budget=Budget(steps=4),
        optimizer=Optimizer(learning_rate=1e-2, eps=1e-3),
    )
    return replace(chinese_clip, name="distilled", stages=(stage,), mesh=MeshShape(data=2, fsdp=4), dtype="float32")


def test_it_trains_sharded_and_moves_to_another_mesh_and_its_bundle_loads(distillation, tmp_path):
    whole = run(distillation, tmp_path / "whole")
    other = replace(distillation, mesh=MeshShape(fsdp=2, tensor=2))
    assert not run(other, tmp_path / "moved", stop_after=1).finished
    moved = run(distillation, tmp_path / "moved")
    assert moved.finished
    for path, leaf in leaves(whole.bundles[0]).items():
        np.testing.assert_allclose(leaves(moved.bundles[0])[path], leaf, rtol=0, atol=1e-4, err_msg=path)
    found = [loss for _, loss in losses(tmp_path / "whole")]
    assert [loss for _, loss in losses(tmp_path / "moved")] == pytest.approx(found, rel=1e-5)
    assert found[-1] < 0.7 * found[0]
    model = jclip.load(whole.bundles[0])
    features = model.encode_image([np.zeros((32, 32, 3), np.uint8)])
    assert features.shape == (1, distillation.model.embed_dim) and np.isfinite(features).all()


def test_its_state_is_split_over_the_mesh(distillation):
    part = assembled(distillation)
    for tree in (part.shardings.trainable, part.shardings.frozen, part.shardings.slots):
        places = {rule.spec for rule in jax.tree.leaves(tree)}
        assert any("fsdp" in str(spec) for spec in places)
    assert set(rules.paths_of(part.state_shapes.trainable)) == {
        path for path in part.paths if path.startswith("image/")
    }


def test_it_is_checked_written_and_read_as_the_others_are(distillation):
    assert from_json(Run, to_json(distillation)) == distillation
    (stage,) = distillation.stages
    narrow = replace(stage.objective, model=replace(stage.objective.model, embed_dim=3))
    with pytest.raises(JclipError, match="stage 'distil': the teacher has 3 features: choose another"):
        check(replace(distillation, stages=(replace(stage, objective=narrow),)))
    with pytest.raises(JclipError, match="stage 'distil': image distillation has no frozen tower to cache: omit cache"):
        check(replace(distillation, stages=(replace(stage, cache="x"),)))


def test_its_fields_are_options(distillation, tmp_path, capsys):
    file = str(tmp_path / "distilled.py")
    Path(file).write_text(
        "from jclip.config import from_json\nfrom jclip.train import Run\n"
        f"def config():\n    return from_json(Run, {to_json(distillation)!r})\n",
        encoding="utf-8",
    )
    assert main(["plan", file, "--no-compile", "--stages.0.objective.weight", "2"]) == 0
    assert "image distillation" in capsys.readouterr().out
    assert main(["plan", file, "--no-compile", "--stages.0.objective.model.embed-dim", "5"]) == 1
    assert "the teacher has 5 features" in capsys.readouterr().err
