"""Sharding tables of every published model: placements, and the small share that is replicated."""

import pytest
from jax.sharding import PartitionSpec as P

from jclip.models import zoo
from jclip.models.build import shapes
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.replication import replication
from jclip.parallel.sharding import param_shardings
from jclip.parallel.tables import rules_for, tower_rules
from jclip.rules import match, paths_of

MESHES = [MeshShape(fsdp=2, tensor=2), MeshShape(data=1, fsdp=8), MeshShape(data=1, fsdp=2, tensor=4)]
FAMILIES = ("clip-vit-b-16", "chinese-clip-rn50", "chinese-clip-vit-b-16", "altclip")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    model = zoo.get_config(request.param)
    return model, shapes(model)["params"]


def spread(family, shape):
    model, params = family
    mesh = make_mesh(shape)
    return paths_of(param_shardings(params, mesh, rules_for(model, mesh))), mesh


def test_two_thousandths_are_replicated(family):
    """Replicated are norms, and biases over fsdp."""
    model, params = family
    for shape in MESHES:
        mesh = make_mesh(shape)
        of = replication(params, param_shardings(params, mesh, rules_for(model, mesh)), mesh)
        assert of.share < 2e-3, of


def test_layers_are_split_as_in_megatron(family):
    places, _ = spread(family, MESHES[0])
    towers = {path.partition("/")[0] for path in places if "/layers/" in path}
    assert "text" in towers
    into, out = P(None, "fsdp", "tensor"), P(None, "tensor", "fsdp")
    for tower in towers:
        for name in ("attention/query", "attention/key", "attention/value", "mlp/fc1"):
            assert places[f"{tower}/layers/{name}/kernel"].spec == into
            assert places[f"{tower}/layers/{name}/bias"].spec == P(None, "tensor")
        for name in ("attention/output", "mlp/fc2"):
            assert places[f"{tower}/layers/{name}/kernel"].spec == out
            assert places[f"{tower}/layers/{name}/bias"].spec == P()
    stacks = [at.spec for path, at in places.items() if "/layers/" in path]
    assert not any(spec and spec[0] for spec in stacks), "a scan's axis of layers is whole"


def test_xlm_r_is_split_along_its_width():
    """250002 rows are divisible by 2 and 3 only, 1024 columns by the usual numbers of devices."""
    model = zoo.get_config("altclip")
    table = {"text": {"word_embedding": shapes(model)["params"]["text"]["word_embedding"]}}
    for shape, ways in ((MeshShape(data=1, fsdp=8), 8), (MeshShape(fsdp=2, tensor=2), 4)):
        mesh = make_mesh(shape)
        rules = tuple(rule for rule in tower_rules(model, "text", mesh) if "embedding" in rule[0])
        (at,) = paths_of(param_shardings(table, mesh, rules)).values()
        assert at.shard_shape((250002, 1024)) == (250002, 1024 // ways)


def test_a_resnet_over_both_axes():
    model = zoo.get_config("chinese-clip-rn50")
    places, _ = spread((model, shapes(model)["params"]), MESHES[0])
    block = "image/stage_3_block_1"
    for name in ("conv_1", "conv_2", "shortcut_conv"):
        assert places[f"{block}/{name}/kernel"].spec == P(None, None, "fsdp", "tensor")
    assert places[f"{block}/conv_3/kernel"].spec == P(None, None, "tensor", "fsdp")
    assert places["image/stem/conv_1/kernel"].spec == P(None, None, None, "tensor")  # of three colours
    assert places["image/attention_pool/attention/query/kernel"].spec == P("fsdp", "tensor")
    assert places["image/attention_pool/attention/output/kernel"].spec == P("tensor", "fsdp")


def test_heads_are_never_cut():
    """12 heads on 8 devices: the attention is not split over that axis, the perceptron is."""
    model = zoo.get_config("chinese-clip-vit-b-16")
    params = shapes(model)["params"]
    places, mesh = spread((model, params), MeshShape(data=1, tensor=8))
    assert "tensor" not in places["text/layers/attention/query/kernel"].spec
    assert places["text/layers/mlp/fc1/kernel"].spec == P(None, None, "tensor")
    of = replication(params, param_shardings(params, mesh, rules_for(model, mesh)), mesh)
    # Both towers' attention: 12 layers of four matrices and biases, of 188 million parameters, and the norms.
    assert of.share == pytest.approx(2 * 12 * 4 * (768 * 768 + 768) / 188_262_913, rel=3e-3)
    assert {part[0] for part in of.parts[:2]} == {"image/layers/attention/*", "text/layers/attention/*"}


@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_model_is_covered(name):
    """Every rule matches something, also for the text tower of a teacher alone."""
    model = zoo.get_config(name)
    paths = paths_of(shapes(model)["params"])
    mesh = make_mesh(MESHES[0])
    assert match(rules_for(model, mesh), paths, what="sharding").keys() == paths.keys()
    text = [path for path in paths if path.startswith("text/")]
    assert len(match(tower_rules(model, "text", mesh), text, what="sharding")) == len(text)
