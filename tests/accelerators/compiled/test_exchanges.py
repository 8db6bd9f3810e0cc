"""Steps for TPUs exchange what their mesh and the form of their loss ask for, and nothing else.

Small models, compiled by the TPU's compiler for slices of 8 to 256 chips; docs/architecture.md has the table. That
compiler writes some in forms of its own. A reduce-scatter is a fusion with an all-reduce, of which a part is kept. A
small gather is an all-reduce of zeros and each device's own part. Collectives of several arrays are combined, and some
are executed in parts beside a loop; here each array counts, once.
"""

from collections import Counter
from dataclasses import dataclass, replace

import jax
import pytest
from jax.sharding import PartitionSpec

from jclip.configs.loading import load_config
from jclip.models import transformer
from jclip.models.resnet import ResNetConfig
from jclip.parallel.mesh import MeshShape
from jclip.train.assembly import assemble, devices_of
from jclip.train.planning.reduced import reduce
from jclip.train.planning.stage_plan import lower_step
from tests.accelerators.compiled.places import at
from tests.train.exchanged import exchanges
from tests.train.placed import moved, taken

pytestmark = pytest.mark.slow
LAYERS = 5  # more than `SHALLOW`, so that they are one loop
REDUCED, SCATTERED, GATHERED, PERMUTED, SENT = KINDS = (
    "all-reduce", "reduce-scatter", "all-gather", "collective-permute", "all-to-all",
)  # fmt: skip
Counts = dict[tuple[str, str], int]


@dataclass(frozen=True)
class Case:
    """A stage's step on the devices of a place, and {(kind, meaning): number of arrays} that it exchanges.

    Attributes:
      words: rows of the word embedding. A device has 77 tokens.
      kept: matrices outside the layers that the backward pass gathers again, or that newer compilers keep.
    """

    place: str
    mesh: MeshShape
    asked: Counts
    form: str = "dense"
    recipe: str = "chinese_clip/vit_b_16"
    stage: int = 1
    words: int = 61
    kept: int = 0

    @property
    def both(self) -> list[Counts]:
        """What is asked for, with the matrices gathered again and kept."""
        return [self.asked, total(self.asked, {(GATHERED, "parameter"): -self.kept})]


def total(*parts: Counts) -> Counts:
    """Returns the sum of these counts."""
    counts = Counter()
    for each in parts:
        counts.update(each)
    return dict(counts)


TOWERS = ("image", "text")
IN_LAYER, OUTSIDE = 16, {"image": 8, "text": 6}
"""A layer has six matrices, six biases and two norms. Outside the layers, the image tower has the patches' kernel, the
class and position embeddings, two norms and the projection; the text tower has three embeddings, a norm and the
projection."""


def gradients(*towers: str) -> Counts:
    """Returns one sum of each parameter's gradient over the devices that split the batch."""
    return {(REDUCED, "parameter"): sum(IN_LAYER * LAYERS + OUTSIDE[tower] for tower in towers)}


def gathered(layers: int, outside: int) -> Counts:
    """Returns one gather of the six matrices of each layer, and of parameters outside the layers."""
    return {(GATHERED, "parameter"): 6 * layers + outside}


def scattered(layers: int, outside: int) -> Counts:
    """Returns the change if gradients are reduced and split at once: six matrices a layer, and some outside the layers.

    Norms, biases and embeddings are summed whole; so are small matrices and the kernels of convolutions, and then cut.
    """
    count = 6 * layers + outside
    return {(REDUCED, "parameter"): -count, (SCATTERED, "parameter"): count}


FSDP = total(gathered(2 * 2 * LAYERS, 8 + 1), scattered(2 * LAYERS, 3))
"""Of both towers, gathered in both passes. Outside the layers the patches' kernel, the projections and five embeddings;
and in the backward pass one projection again, because the other one is still there. Split are the layers' matrices, the
patches' kernel and the projections."""
AGAIN: Counts = {(REDUCED, "parameter"): 2 * 6 * LAYERS + 3}
"""On a mesh of data and fsdp, the gradients of the layers' matrices, of the patches' kernel and of the projections are
reduced and split over fsdp; then the parts are summed over data."""
TENSOR: Counts = {
    (REDUCED, "states"): 2 * 2 * LAYERS + (2 + 3) * LAYERS,
    (REDUCED, "a token's states"): 2,
}
"""The states are summed twice in a layer of each tower; their gradients once for fc1, and once or twice for query, key
and value; those of the projections once."""
DENSE: Counts = {
    (GATHERED, "features"): 1,
    (GATHERED, "ids"): 1,
    (REDUCED, "features"): 1,
    (REDUCED, "statistics"): 3,
}
"""The texts' features and ids; their gradients; their maxima and sums, and the sums' gradients."""
CHUNKED: Counts = {
    (GATHERED, "features"): 1,
    (GATHERED, "ids"): 1,
    (SENT, "statistics"): 2,
    (GATHERED, "statistics"): 2,
    (REDUCED, "features"): 1,
}
"""The texts' features and ids; their statistics, which go back to them; in the backward pass the statistics again, and
the texts' gradients."""


def ring(devices: int) -> Counts:
    """Returns what is passed on: features and ids, each with two statistics; in the backward pass, gradients too."""
    return {(PERMUTED, "features"): 3 * devices, (PERMUTED, "statistics"): 4 * devices, (PERMUTED, "ids"): 2 * devices}


ROWS: Counts = {(GATHERED, "tokens"): 1, (SENT, "states"): 1}
"""The ids, and the gradients of their rows, which are smaller than a table with more rows than a device has tokens."""
ONE_LESS: Counts = {(REDUCED, "parameter"): -1}
"""The gradient of such a table is not summed."""
RESNET: Counts = {(GATHERED, "parameter"): 2 * (18 + 4) + 1, (REDUCED, "parameter"): 19 * (2 + 2) - 4 + 19 + 9}
"""A small RN50 has 19 convolutions, each with a norm. Gathered in both passes are all kernels except the first, whose
three input channels are not split, and the four matrices of the attention; and the positions once. Summed are the mean
and variance of each norm and its two gradients, of which a block's last norm and that of its shortcut share one; the
gradients of the kernels, and those of the attention."""
RN50, ALTCLIP = "chinese_clip/rn50", "altclip/vit_l_14"
BOTH = gradients(*TOWERS)
STUDENT = total(gradients("text"), {(REDUCED, "parameter"): 2 + 2})
"""AltCLIP's text tower has a head and its norm."""
CASES = {
    "data, dense": Case("v5e:2x4", MeshShape(), total(BOTH, DENSE)),
    "data, ring": Case("v5e:2x4", MeshShape(), total(BOTH, ring(8)), "ring"),
    "fsdp, dense": Case("v5e:2x4", MeshShape(1, 8), total(BOTH, FSDP, DENSE), kept=1),
    "fsdp, chunked": Case(
        "v5e:2x4", MeshShape(1, 8), total(BOTH, FSDP, CHUNKED, ROWS, ONE_LESS), "chunked", words=131, kept=1
    ),
    "tensor": Case("v5e:2x4", MeshShape(1, 1, 8), total(gathered(0, 8), TENSOR)),
    "fsdp, RN50": Case(
        "v5e:2x4",
        MeshShape(1, 8),
        total(gradients("text"), gathered(2 * LAYERS, 5), scattered(LAYERS, 1 + 4), RESNET, DENSE, ROWS, ONE_LESS),
        recipe=RN50,
        words=131,
        kept=2,
    ),
    # The student's layers in both passes, its head and embeddings; the teacher's two layers and embeddings. The student
    # has no gradient of its projection; its 514 positions are more than a device's tokens.
    "fsdp, teacher learning": Case(
        "v5e:2x4",
        MeshShape(1, 8),
        total(STUDENT, gathered(2 * LAYERS + 2, 4 + 2), scattered(LAYERS, 1), ROWS, ONE_LESS, ONE_LESS),
        recipe=ALTCLIP,
        stage=0,
    ),
    # Both projections are gathered again. The parts of the patch kernel's gradient change their order.
    "all axes": Case(
        "v5p:2x2x2",
        MeshShape(2, 2, 2),
        total(BOTH, FSDP, gathered(0, 1), AGAIN, TENSOR, {(PERMUTED, "parameter"): 1}, DENSE),
        kept=1,
    ),
    "64 chips, data x tensor": Case("v5e:8x8", MeshShape(8, 1, 8), total(BOTH, gathered(0, 8), TENSOR, DENSE)),
    # The image tower is frozen, so it has no backward pass.
    "64 chips, AltCLIP, ring": Case(
        "v5e:8x8",
        MeshShape(8, 8),
        total(
            STUDENT, gathered(3 * LAYERS, 9), scattered(LAYERS, 1), {(REDUCED, "parameter"): 6 * LAYERS + 2}, ring(64)
        ),
        "ring",
        recipe=ALTCLIP,
    ),
    "256 chips, data x fsdp": Case("v5e:16x16", MeshShape(32, 8), total(BOTH, FSDP, AGAIN, CHUNKED), "chunked", kept=1),
}


def small(run, case, devices):
    """Returns the run on towers whose parameters and states have different numbers of elements.

    A device has 7 examples, because 7 divides no parameter.
    """
    width = 512 if devices > 64 else 256
    image, text = run.model.image, replace(run.model.text, layers=LAYERS, width=width, heads=8)
    text = replace(text, intermediate=2 * width, vocab_size=case.words)
    if isinstance(image, ResNetConfig):
        image = replace(image, width=16)
    else:
        image = replace(image, layers=LAYERS, width=width, heads=8, patch_size=8)
    model, mesh = replace(run.model, image=image, text=text, embed_dim=384), case.mesh
    split = devices // mesh.tensor
    stages = [replace(each, batch_size=7 * split, context_length=11, micro_batches=1) for each in run.stages]
    objective = stages[case.stage].objective
    if hasattr(objective, "loss"):
        objective = replace(objective, loss=replace(objective.loss, impl=case.form, chunk=4096))
        stages[case.stage] = replace(stages[case.stage], objective=objective)
    return replace(run, model=model, stages=tuple(stages), mesh=mesh, dtype="float32", remat="dots", max_replicated=1.0)


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    """Returns a function: recipe, number of devices -> the reduced recipe."""
    return lambda recipe, devices: reduce(load_config(recipe), tmp_path_factory.mktemp("inputs"), devices=devices)


def compiled(compiler, run, index):
    """Returns what a step exchanges, and sentences about arguments and results that it moves."""
    part = assemble(run, index, devices_of(run, compiler.devices))
    program = lower_step(part).compile()
    state = taken(part)[0]
    places = [*moved(taken(part), program.input_shardings[0][:3]), *moved(state, program.output_shardings[0])]
    return exchanges(part, program.as_text(), stacks=True), places


def differs(found: Counts, asked: Counts) -> Counts:
    """Returns {(kind, meaning): number of arrays more, or less, than asked for}, scalars apart."""
    found, asked = Counter({key: count for key, count in found.items() if key[1] != "scalar"}), Counter(asked)
    for kind, meaning in list(asked):
        if kind == GATHERED and (fewer := asked[kind, meaning] - found[kind, meaning]) > 0:
            asked[kind, meaning] -= fewer
            asked[REDUCED, meaning] += fewer
    return {key: found[key] - asked[key] for key in {*found, *asked} if found[key] != asked[key]}


@pytest.mark.parametrize("name", [at(case.place, name) for name, case in CASES.items()])
def test_a_step_exchanges_what_was_asked_for(name, reduced, processes):
    case = CASES[name]
    process = processes(case.place)
    devices = process.place.devices
    found, places = process.call(compiled, small(reduced(case.recipe, devices), case, devices), case.stage)
    assert {} in [differs(found, asked) for asked in case.both]
    assert not places


def extra(compiler, run, index, spec):
    """Works like `compiled` for a step whose layers' states are first split as `spec` says."""
    plain = transformer.by_example
    try:
        transformer.by_example = lambda x: jax.lax.with_sharding_constraint(x, spec) if x.ndim == 3 else plain(x)
        return compiled(compiler, run, index)
    finally:
        transformer.by_example = plain


@pytest.mark.xdist_group(CASES["data, dense"].place)
@pytest.mark.parametrize(("spec", "kind"), [(PartitionSpec(), GATHERED), (PartitionSpec(None, None, "data"), SENT)])
def test_what_was_not_asked_for_is_noticed(spec, kind, reduced, processes):
    """Between layers, states are gathered, or split along their width."""
    case = CASES["data, dense"]
    found, _ = processes(case.place).call(extra, small(reduced(case.recipe, 8), case, 8), case.stage, spec)
    assert [key for key, count in differs(found, case.asked).items() if key[0] == kind and count > 0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_more_is_noticed(kind):
    assert differs(total(DENSE, {(kind, "features"): 1}), DENSE)
    assert not differs(total(DENSE, {(kind, "scalar"): 1}), DENSE)


def test_a_gradient_that_is_summed_whole_and_then_cut_is_noticed():
    asked = CASES["fsdp, dense"].asked
    assert not differs(asked, asked)
    assert differs(total(asked, {(REDUCED, "parameter"): 1, (SCATTERED, "parameter"): -1}), asked)
