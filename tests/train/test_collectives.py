"""Steps exchange what their mesh and the form of their loss ask for, and nothing else: see docs/architecture.md."""

from collections import Counter
from dataclasses import dataclass, replace

import jax
import pytest
from jax.sharding import PartitionSpec

from jclip.models import vit
from jclip.parallel.mesh import MeshShape
from tests.train.assembled import lowered_step, shapes_of
from tests.train.exchanged import exchanges

LAYERS = 5  # more than `SHALLOW`, so that they are one loop


@dataclass(frozen=True)
class Case:
    """A stage's step on a mesh, and {(kind, meaning): number of arrays} that it may exchange."""

    mesh: MeshShape
    exchanges: dict[tuple[str, str], int]
    impl: str = "dense"
    micro: int = 1
    recipe: str = "chinese_clip"
    stage: int = 1


GRADIENTS = 2 * LAYERS * 16 + 8 + 6
"""A layer has six matrices, six biases and two norms. Outside the layers, the image tower has the patches' kernel, the
class and position embeddings, two norms and the projection; the text tower has three embeddings, a norm and the
projection."""
MATRICES, TABLES = 2 * LAYERS * 6, 4 + 4
"""Matrices of the layers; and outside them the kernels and embeddings, of the image and the text tower."""
REDUCED, GATHERED, PERMUTED, SENT = "all-reduce", "all-gather", "collective-permute", "all-to-all"
DENSE = {
    (GATHERED, "features"): 1,
    (GATHERED, "ids"): 1,
    (GATHERED, "statistics"): 2,
    (REDUCED, "features"): 1,
    (REDUCED, "statistics"): 2,
}
"""The texts' features and ids; two statistics; the gradient; a maximum and a sum."""
CHUNKED = {
    (GATHERED, "features"): 1,
    (GATHERED, "ids"): 1,
    (GATHERED, "statistics"): 2,
    ("reduce-scatter", "features"): 1,
}
# A table of 131 rows is split along its width, so its gradient needs the ids and the states, in 8 parts. AltCLIP's is
# larger than the batch, so that it is not gathered in the forward pass either.
WIDTH = {(GATHERED, "tokens"): 1, (SENT, "f32[7, 16, 1, 12]"): 8}


def ring(devices):
    """Returns what is passed on: features and ids, each with two statistics; in the backward pass, gradients too."""
    return {(PERMUTED, "features"): 3 * devices, (PERMUTED, "statistics"): 4 * devices, (PERMUTED, "ids"): 2 * devices}


DATA, FSDP, TENSOR, MIXED = MeshShape(), MeshShape(1, 8), MeshShape(4, 1, 2), MeshShape(2, 2, 2)
CASES = {
    "data, dense": Case(DATA, DENSE),
    "data, ring": Case(DATA, ring(8), "ring"),
    "fsdp, dense": Case(FSDP, DENSE | WIDTH),
    "fsdp, chunked": Case(FSDP, CHUNKED | WIDTH | {(SENT, "statistics"): 2 * 8}, "chunked"),
    "tensor, dense": Case(TENSOR, DENSE),
    "mixed, ring": Case(MIXED, ring(4), "ring"),
    "mixed, micro-batches": Case(MIXED, CHUNKED | {(SENT, "statistics"): 2 * 4}, "chunked", micro=2),
    "mixed, frozen image tower": Case(MIXED, DENSE, stage=0),
    "fsdp, AltCLIP": Case(FSDP, DENSE | {key: 2 * count for key, count in WIDTH.items()}, recipe="altclip"),
}


def small(run, case):
    """Returns the run on towers whose parameters and states have different numbers of elements."""
    model = run.model
    image = replace(model.image, layers=LAYERS, width=80, heads=4)
    text = replace(model.text, layers=LAYERS, width=96, heads=4, intermediate=192)
    model = replace(model, image=image, text=text, embed_dim=72)
    stage = run.stages[case.stage]
    if hasattr(stage.objective, "loss"):
        stage = replace(stage, objective=replace(stage.objective, loss=replace(stage.objective.loss, impl=case.impl)))
    stage = replace(stage, batch_size=56 * case.micro, micro_batches=case.micro)
    stages = tuple(stage if number == case.stage else each for number, each in enumerate(run.stages))
    return replace(run, model=model, stages=stages, mesh=case.mesh, dtype="float32", remat="dots")


QUICK = ("data, ring", "fsdp, dense", "mixed, micro-batches")


def exchanged(run, case):
    part = shapes_of(run, case.stage)
    return Counter(exchanges(part, lowered_step(run, case.stage).compile().as_text()))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_a_step_exchanges_what_was_asked_for(name, chinese_clip, altclip):
    case, passes = CASES[name], 2 if CASES[name].micro == 1 else 3  # micro-batches run forward again
    found = exchanged(small(altclip if case.recipe == "altclip" else chinese_clip, case), case)
    mesh, most = case.mesh, Counter()
    if mesh.fsdp > 1:
        most[GATHERED, "parameter"] = passes * (MATRICES + TABLES) * (2 if mesh.tensor > 1 else 1)
    if mesh.tensor > 1:
        most[GATHERED, "parameter"] += passes * TABLES
        # Two sums a layer in a forward pass; in the backward pass that of fc1, and those of query, key and value.
        most[REDUCED, "states"] = case.micro * 2 * LAYERS * (2 * (passes - 1) + 4)
        most[REDUCED, "a token's states"] = 2 * case.micro  # the projections' gradients
        most[PERMUTED, "parameter"] = case.micro  # the parts of the patch kernel's gradient change their order
    most[REDUCED, "parameter"] = case.micro * GRADIENTS * (2 if mesh.fsdp > 1 and mesh.data != 1 else 1)
    most[REDUCED, "scalar"] = 100
    assert not {key: count for key, count in found.items() if key in most and count > most[key]}
    assert {key: count for key, count in found.items() if key not in most} == case.exchanges


def test_an_extra_gather_is_noticed(chinese_clip, monkeypatch):
    """The image tower's first states are gathered on every device."""
    monkeypatch.setattr(vit, "by_example", lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()))
    case = CASES["data, dense"]
    more = exchanged(small(chinese_clip, case), case) - Counter(case.exchanges)
    assert {meaning for kind, meaning in more if kind == GATHERED} - {"parameter"}
