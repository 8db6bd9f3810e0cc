"""What a stage holds: stacks cut where layers are frozen, frozen parameters in bfloat16; and whole runs with both."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip import rules
from jclip.bundle import load_bundle
from jclip.errors import JclipError
from jclip.models.resnet import ResNetConfig
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.tokenizers.text import load_tokenizer
from jclip.train.assembly import StageParts, check_and_mesh, variables_of
from jclip.train.checks import check
from jclip.train.layout import Layout, joined
from jclip.train.loop import train
from jclip.train.planning.flops import count_flops
from jclip.train.state import unrounded
from tests.train.runs import assert_same_bundles, leaves, losses

TOP_OF_IMAGE = ((r"image/(layers|post_norm|projection)/.*|text/.*|logit_scale", True), (r".*", False))
KERNEL = "image/layers/mlp/fc1/kernel"


def stages(run, *changes):
    """The run with its second stage's data and budget, once for each dictionary of changes, at a rate that moves."""
    stage = run.stages[-1]
    optimizer = replace(stage.optimizer, learning_rate=1e-2, warmup_steps=0, schedule="constant", eps=1e-3)
    made = tuple(
        replace(stage, **{"name": f"s{i}", "optimizer": optimizer, **change}) for i, change in enumerate(changes)
    )
    return replace(run, stages=made, dtype="float32")


def deep(run, layers=3):
    """With more layers in both towers."""
    model = run.model
    image, text = replace(model.image, layers=layers), replace(model.text, layers=layers)
    return replace(run, model=replace(model, image=image, text=text))


def parts_of(run, shape=MeshShape()):  # noqa: B008 (frozen)
    mesh = make_mesh(shape)
    tokenizer = load_tokenizer(run.tokenizer)
    teacher = load_bundle(run.teacher.bundle) if run.teacher else None
    return [StageParts(run, index, mesh, tokenizer, teacher) for index in range(len(run.stages))]


def moved_layers(before, after, path):
    """Of a stack, which layers differ."""
    return [not np.array_equal(one, other) for one, other in zip(before[path], after[path], strict=True)]


def test_cut_and_joined_are_inverse():
    stack = {"kernel": jnp.arange(12.0).reshape(4, 3)}
    params = {"image": {"layers": stack, "patch": jnp.ones(2)}, "text": {"layers": stack}, "logit_scale": jnp.ones(())}
    held = Layout(frozenset(), first=(3, 0), rounded=frozenset({"image/patch"})).held(params)
    assert held["image"]["first_layers"]["kernel"].shape == (3, 3)
    assert held["image"]["layers"]["kernel"].tolist() == [[9, 10, 11]]
    assert held["image"]["patch"].dtype == jnp.bfloat16
    assert held["text"]["layers"]["kernel"] is stack["kernel"]  # not copied
    back = joined(held)
    assert back["image"].keys() == {"layers", "patch"}
    np.testing.assert_array_equal(back["image"]["layers"]["kernel"], stack["kernel"])


def test_only_the_last_layers_move_and_have_slots(chinese_clip, tmp_path):
    """Three stages: the last one of three layers, then the last two, then all."""
    one, two = ({"trains": TOP_OF_IMAGE, "last_layers": (("image", n),)} for n in (1, 2))
    run = deep(stages(chinese_clip, one, two, {"trains": ((".*", True),)}))
    bundles = [leaves(bundle) for bundle in train(run, tmp_path / "run").bundles]
    with jax.set_mesh(make_mesh()):
        start = rules.paths_of(jax.device_get(variables_of(parts_of(run)[0].start()))["params"])
    for before, after, expected in zip(
        [start, *bundles], bundles, ([False, False, True], [False, True, True], [True] * 3), strict=False
    ):
        for path in before:
            if path.startswith("image/layers/"):
                assert moved_layers(before, after, path) == expected, path
        assert all(moved_layers(before, after, "text/layers/mlp/fc1/kernel"))
    np.testing.assert_array_equal(bundles[1]["image/class_embedding"], start["image/class_embedding"])
    # A slot for each moment of what trains, and none for the rest.
    for part, layers in zip(parts_of(run), (1, 2, 3), strict=True):
        state = part.state_shapes
        assert state.trainable["image"]["layers"]["mlp"]["fc1"]["kernel"].shape[0] == layers
        moments = [leaf.size for leaf in jax.tree.leaves(state.slots) if leaf.dtype == jnp.float32]
        assert sum(moments) == 2 * sum(leaf.size for leaf in jax.tree.leaves(state.trainable))


@pytest.mark.parametrize("shape", [MeshShape(), MeshShape(data=4, fsdp=2)], ids=["data", "fsdp"])
def test_a_cut_tower_computes_the_same(chinese_clip, shape):
    """The loss and the gradients of the last layers are those of a stage that trains all."""
    found = []
    for change in ({"trains": ((".*", True),)}, {"trains": TOP_OF_IMAGE, "last_layers": (("image", 1), ("text", 2))}):
        (part,) = parts_of(deep(stages(chinese_clip, change)), shape)
        with jax.set_mesh(part.mesh):
            state, _ = part.compiled(part.start(), {}, part.place(part.batches[0]), jax.random.key(0))
            found.append(rules.paths_of(jax.device_get(variables_of(state))["params"]))
        for tree, at in zip(state, part.shardings, strict=True):
            for leaf, place in zip(jax.tree.leaves(tree), jax.tree.leaves(at), strict=True):
                assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    everything, last = found
    np.testing.assert_allclose(last[KERNEL][-1], everything[KERNEL][-1], atol=1e-6)
    for path in ("text/layers/mlp/fc1/kernel", "text/layers/attention/query/kernel"):
        np.testing.assert_allclose(last[path][1:], everything[path][1:], atol=1e-6)
    if shape.fsdp > 1:
        held = state.frozen["image"]["first_layers"]["mlp"]["fc1"]["kernel"]
        assert held.shape[0] == 2 and "fsdp" in held.sharding.spec
        assert {shard.data.size for shard in held.addressable_shards} == {held.size // 2}


def test_no_backward_pass_through_frozen_layers(chinese_clip):
    """A layer more that trains costs two forward passes of a layer more, to the last multiplication."""
    top = ((r"image/(layers|post_norm|projection)/.*", True), (r".*", False))
    run = stages(chinese_clip, *({"trains": top, "last_layers": (("image", n),)} for n in (1, 2, 4)), {"trains": top})
    parts = parts_of(deep(run, 4))

    def flops(part):
        with jax.set_mesh(part.mesh):
            arguments = part.state_shapes, {}, part.batch_shapes(), jax.random.key(0)
            return count_flops(part.step, *arguments)

    one, two, four, all_ = (flops(part) for part in parts)
    config, batch = parts[0].run.model.image, parts[0].stage.batch_size
    tokens, width = config.patches + 1, config.width
    layer = batch * 2 * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    assert two - one == 2 * layer
    assert four == all_ == one + 6 * layer


def test_slots_of_layers_carry_where_both_stages_train_them(chinese_clip):
    carries = ((r"image/.*", True), (r".*", False))
    one, two = ({"trains": TOP_OF_IMAGE, "last_layers": (("image", n),)} for n in (1, 2))
    first, second, third = parts_of(
        deep(stages(chinese_clip, one, two | {"carries": carries}, one | {"carries": carries}))
    )
    key = jax.random.key(0)

    def moments(state):
        found = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.slots):
            word = jax.tree_util.keystr(path, simple=True, separator="/")
            for kind in ("mu", "nu", "count"):
                if f"/{kind}/" in word:
                    found[f"{kind}/{word.partition(f'/{kind}/')[2]}"] = np.asarray(leaf)
        return found

    with jax.set_mesh(first.mesh):
        state, _ = first.compiled(first.start(), {}, first.place(first.batches[0]), key)
        before, begun = moments(state), second.follow(state)
        after = moments(begun)
        for kind in ("mu", "nu", "count"):
            np.testing.assert_array_equal(after[f"{kind}/{KERNEL}"][1], before[f"{kind}/{KERNEL}"][0])
            assert not after[f"{kind}/{KERNEL}"][0].any() and before[f"{kind}/{KERNEL}"][0].any()
            assert not after[f"{kind}/text/layers/mlp/fc1/kernel"].any()  # not asked for
        state, _ = second.compiled(begun, {}, second.place(second.batches[0]), key)
        before, after = moments(state), moments(third.follow(state))
        np.testing.assert_array_equal(after[f"mu/{KERNEL}"], before[f"mu/{KERNEL}"][1:])
        assert after[f"count/{KERNEL}"].ravel().tolist() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last_layers": (("imgae", 1),)}, "last_layers names 'imgae': name image, text, or both"),
        ({"last_layers": (("image", 1), ("image", 2))}, "last_layers names 'image' twice"),
        ({"last_layers": (("image", 0),)}, "the image tower has 2 layers, of which 0 cannot be: give 1 to 2"),
        ({"last_layers": (("text", 3),)}, "the text tower has 2 layers, of which 3 cannot be: give 1 to 2"),
        ({"last_layers": (("image", 1),), "trains": (("image/.*", False), (".*", True))}, "let it train them"),
    ],
)
def test_impossible_last_layers_are_refused(chinese_clip, change, message):
    with pytest.raises(JclipError, match=f"stage 's0': {message}|{message}"):
        check(stages(chinese_clip, change))


def test_the_last_layers_of_a_resnet_are_refused(chinese_clip):
    resnet = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=8, heads=4)
    run = replace(chinese_clip, model=replace(chinese_clip.model, image=resnet))
    with pytest.raises(JclipError, match="the image tower is a ResNet, whose blocks have names of their own"):
        check(stages(run, {"last_layers": (("image", 1),)}))


FROZEN = {"trains": ((r"image/.*", False), (r".*", True)), "frozen_dtype": "bfloat16"}


def test_frozen_parameters_are_held_in_bfloat16(chinese_clip):
    change = {"trains": TOP_OF_IMAGE, "last_layers": (("image", 1),), "frozen_dtype": "bfloat16"}
    (part,) = parts_of(stages(chinese_clip, change))
    with jax.set_mesh(part.mesh):
        state, metrics = part.compiled(part.start(), {}, part.place(part.batches[0]), jax.random.key(0))
    frozen = {path: leaf.dtype for path, leaf in rules.paths_of(state.frozen).items()}
    for path, dtype in frozen.items():
        assert dtype == (jnp.float32 if path.endswith(("bias", "scale")) else jnp.bfloat16), path
    assert "image/first_layers/mlp/fc1/kernel" in frozen and "image/patch/kernel" in frozen
    assert all(leaf.dtype == jnp.float32 for leaf in rules.paths_of(state.trainable).values())
    # Rounding the frozen tower moves the loss a little: it is the rounded one that was read.
    assert metrics["loss"].dtype == jnp.float32
    (part,) = parts_of(stages(chinese_clip, change | {"frozen_dtype": "float32"}))
    with jax.set_mesh(part.mesh):
        _, exact = part.compiled(part.start(), {}, part.place(part.batches[0]), jax.random.key(0))
    assert 0 < abs(metrics["loss"] - exact["loss"]) < 1e-2 * exact["loss"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"trains": ((".*", True),)}, "'s0' keeps image/.* in bfloat16, but stage 's1' trains it: set frozen_dtype"),
        (
            {"trains": TOP_OF_IMAGE, "last_layers": (("image", 1),), "frozen_dtype": "bfloat16"},
            "'s0' keeps image/layers/.* in bfloat16, but stage 's1' trains it",
        ),
        (FROZEN | {"frozen_dtype": "float32"}, "but stage 's1' keeps it in float32: .*, or to bfloat16 in 's1'"),
    ],
)
def test_what_was_rounded_stays_frozen_and_rounded(chinese_clip, second, message):
    with pytest.raises(JclipError, match=message):
        check_and_mesh(stages(chinese_clip, FROZEN, second))


def test_layers_that_were_rounded_may_stay_so_while_others_train(chinese_clip):
    one, two = ({"trains": TOP_OF_IMAGE, "last_layers": (("image", n),), "frozen_dtype": "bfloat16"} for n in (1, 2))
    check(stages(chinese_clip, two, one))
    with pytest.raises(JclipError, match="stage 's0' keeps image/layers/.* in bfloat16, but stage 's1' trains it"):
        check(deep(stages(chinese_clip, one, two)))


def test_a_run_with_both_resumes_to_the_bit(chinese_clip, tmp_path):
    change = {"trains": TOP_OF_IMAGE, "last_layers": (("image", 1),), "frozen_dtype": "bfloat16"}
    run = stages(chinese_clip, change, change | {"carries": ((".*", True),)})
    whole = train(run, tmp_path / "whole")
    for stop in (1, 2, 3, None):
        parts = train(run, tmp_path / "parts", stop_after=stop)
    assert parts.finished
    assert_same_bundles(parts.bundles, whole.bundles)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_what_was_rounded_comes_back_from_its_bundle(chinese_clip, tmp_path):
    source = train(stages(chinese_clip, {"trains": ((".*", True),)}), tmp_path / "source").bundles[0]
    exact = leaves(source)
    change = {"trains": TOP_OF_IMAGE, "last_layers": (("image", 1),), "frozen_dtype": "bfloat16"}
    run = replace(stages(chinese_clip, change), starts_from=((".*", str(source)),))
    (part,) = parts_of(run)
    with jax.set_mesh(part.mesh):
        state, _ = part.compiled(part.start(), {}, part.place(part.batches[0]), jax.random.key(0))
        kept = jax.device_get(variables_of(state))["params"]
    found = rules.paths_of(part.unrounded(kept, None))
    rounded = rules.paths_of(kept)
    assert rounded["image/patch/kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["image/patch/kernel"], exact["image/patch/kernel"])
    assert not np.array_equal(rounded[KERNEL][0], exact[KERNEL][0])
    np.testing.assert_array_equal(found[KERNEL][0], exact[KERNEL][0])
    # What trained is as it was trained.
    np.testing.assert_array_equal(found[KERNEL][1], rounded[KERNEL][1])
    assert not np.array_equal(found[KERNEL][1], exact[KERNEL][1])
    # A bundle of other values is not believed, and one that is gone is passed over.
    other = train(replace(stages(chinese_clip, {"trains": ((".*", True),)}), seed=9), tmp_path / "other").bundles[0]
    still = rules.paths_of(unrounded(kept, part.layout, [tmp_path / "gone", other]))
    assert still["image/patch/kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(still[KERNEL], rounded[KERNEL])
