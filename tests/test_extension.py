"""Towers of another package take part in everything, without a change to any file of jclip."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from jax.sharding import NamedSharding, PartitionSpec

from jclip import rules
from jclip.axes import BATCH_AXES
from jclip.bundle import Bundle, load_bundle, save_bundle
from jclip.config import from_json, to_json
from jclip.configs.loading import load_config
from jclip.data.sources.synthetic import write_tokenizer
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.models.build import init_variables, shapes
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.models.vit import VitConfig
from jclip.models.zoo import get_config
from jclip.optimizer import Optimizer, build
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import param_shardings
from jclip.parallel.tables import rules_for
from jclip.train.layout import layout
from jclip.train.loop import train
from jclip.train.planning.reduced import reduce
from tests.toys import TOY, ToyImageConfig, ToyTextConfig
from tests.train.runs import leaves

CONFIGS = Path(__file__).parents[1] / "configs"

IMAGES = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
IDS = np.array([[5, 6, 7, 0], [5, 0, 0, 0], [9, 9, 3, 1], [2, 3, 0, 0]])


def test_sharded_over_devices_by_its_own_table():
    mesh = make_mesh(MeshShape(data=1, fsdp=1, tensor=2), jax.devices()[:2])
    places = param_shardings(shapes(TOY)["params"], mesh, rules_for(TOY, mesh))
    params = jax.jit(lambda key: init_variables(TOY, key)["params"], out_shardings=places)(jax.random.key(0))
    for tower in ("image", "text"):
        kernel = params[tower]["layers"]["kernel"]
        assert kernel.shape == (3, 8, 8) and kernel.addressable_shards[0].data.shape == (3, 8, 4)
    alone = init_variables(TOY, jax.random.key(0))
    model = DualEncoder(TOY)
    with jax.set_mesh(mesh):
        found = jax.jit(model.apply)({"params": params}, IMAGES, IDS)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), found, model.apply(alone, IMAGES, IDS)
    )


def test_gradients_are_the_same_on_a_mesh_of_three_axes():
    """Without `by_example` in the toys' layers, XLA computes others."""
    mesh = make_mesh(MeshShape(2, 2, 2), jax.devices())
    places = param_shardings(shapes(TOY)["params"], mesh, rules_for(TOY, mesh))
    params, model = init_variables(TOY, jax.random.key(0))["params"], DualEncoder(TOY)
    images, ids = np.repeat(IMAGES, 2, axis=0), np.repeat(IDS, 2, axis=0)
    weights = np.random.default_rng(1).normal(size=(2, 8, 8)).astype(np.float32)

    def loss(params, images, ids):
        features = model.apply({"params": params}, images, ids)[:2]
        return sum((weight * each).sum() for weight, each in zip(weights, features, strict=True))

    alone = jax.jit(jax.grad(loss))(params, images, ids)
    rows = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(loss), in_shardings=(places, rows, rows), out_shardings=places)
        found = step(params, images, ids)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5), found, alone)


def test_a_head_of_its_own_is_sharded_by_its_own_table():
    """It need not be named as BERT's is."""
    mesh, headed = make_mesh(), type("Headed", (ToyTextConfig,), {"takes_head": True, "head_sharding": ()})
    rules_of_head = rules_for(replace(TOY, text=headed(), head_width=8), mesh)
    param_shardings(shapes(TOY)["params"], mesh, rules_of_head)
    headed.head_sharding = ((r"projection/kernel", "copy"),)
    assert set(rules_for(replace(TOY, text=headed(), head_width=8), mesh)) - set(rules_of_head) == {
        ("text/projection/kernel", "copy")
    }
    assert ("text/head/kernel", "fsdp,tensor") in rules_for(get_config("altclip"), mesh)


def test_saved_in_a_bundle_and_loaded(tmp_path):
    tokenizer = write_tokenizer("wordpiece", tmp_path / "tokenizer")
    config = TOY.reduced(32, tokenizer.vocab_size, 16)
    assert config.image == ToyImageConfig(32, 4) and config.text == ToyTextConfig(tokenizer.vocab_size, 4, longest=16)
    params = jax.device_get(init_variables(config, jax.random.key(0))["params"])
    save_bundle(Bundle(config, params, tokenizer, Preprocessing(size=32), 16), tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    with pytest.raises(JclipError, match="context_length is 17, but the text tower has positions for 16"):
        save_bundle(replace(loaded, context_length=17), tmp_path / "other")


def test_frozen_first_layers_give_the_same_numbers():
    params = init_variables(TOY, jax.random.key(0))["params"]
    split = dict(params)
    for tower, frozen in (("image", 1), ("text", 2)):
        kernel = params[tower]["layers"]["kernel"]
        stacks = {"first_layers": {"kernel": kernel[:frozen]}, "layers": {"kernel": kernel[frozen:]}}
        split[tower] = params[tower] | stacks
    whole = DualEncoder(TOY).apply({"params": params}, IMAGES, IDS)
    apart = DualEncoder(TOY, frozen_layers=(1, 2)).apply({"params": split}, IMAGES, IDS)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), apart, whole)


def test_layer_decay_by_hand():
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes(TOY)["params"])
    spec = Optimizer(
        learning_rate=1.0, schedule="constant", weight_decay=0.0, eps=1e-12, layer_decay=(("image", 0.5), (".*", 1.0))
    )
    optimizer = build(spec, 10, rules.paths_of(params), params, TOY.towers)
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    rates = {path: -np.asarray(leaf) for path, leaf in rules.paths_of(updates).items()}
    np.testing.assert_allclose(rates["image/input/kernel"], 1 / 16, rtol=1e-5)
    np.testing.assert_allclose(rates["image/layers/kernel"][:, 0, 0], [1 / 8, 1 / 4, 1 / 2], rtol=1e-5)
    np.testing.assert_allclose(rates["image/projection/kernel"], 1, rtol=1e-5)
    np.testing.assert_allclose(rates["text/layers/kernel"], 1, rtol=1e-5)


def test_a_tower_without_optional_methods_is_refused_where_they_are_needed():
    flat = type("Flat", (ToyImageConfig,), {"layer_numbers": (), "patches": 0})(depth=0)
    model = replace(TOY, image=flat)
    with pytest.raises(JclipError, match=r"frozen_layers: a Flat has no stack of layers \(image tower\)"):
        jax.eval_shape(DualEncoder(model, frozen_layers=(1, 0)).init, jax.random.key(0), IMAGES, IDS)
    with pytest.raises(JclipError, match="patch_dropout: a Flat does not support it: set it to 0"):
        jax.eval_shape(DualEncoder(model, patch_dropout=0.5).init, jax.random.key(0), IMAGES, IDS)
    with pytest.raises(JclipError, match="head_width: a ToyTextConfig has no head"):
        replace(TOY, head_width=8)
    params = shapes(TOY)["params"]
    with pytest.raises(JclipError, match="layer_decay: the image tower does not number its layers"):
        build(Optimizer(layer_decay=((".*", 0.5),)), 10, rules.paths_of(params), params, model.towers)


def test_a_file_names_the_tower():
    record = to_json(TOY)
    assert record["image"]["type"] == "ToyImageConfig"
    assert from_json(DualEncoderConfig, record) == TOY
    record["image"]["type"] = "MixerConfig"
    with pytest.raises(JclipError) as caught:
        from_json(DualEncoderConfig, record, "config.json: model")
    message = str(caught.value)
    assert message.startswith("config.json: model.image cannot be a MixerConfig: choose one of VitConfig, ResNetConfig")
    assert message.endswith("or set JCLIP_KINDS to the module or .py file that registers it") and "\n" not in message


def test_the_command_line_sets_the_fields_of_a_tower():
    model = tyro.cli(DualEncoderConfig, args=["--image.width", "16", "--text.longest", "9"], default=TOY)
    assert model == replace(TOY, image=replace(TOY.image, width=16), text=replace(TOY.text, longest=9))


def test_trained_through_a_run(tmp_path):
    """Two stages: image tower frozen, then only the last layer of the image tower, with layer-wise decay."""
    recipe = load_config(str(CONFIGS / "chinese_clip" / "vit_b_16.py"))
    first, second = recipe.stages
    optimizer = replace(second.optimizer, layer_decay=((".*", 0.5),), learning_rate=1e-2, warmup_steps=0)
    second = replace(second, last_layers=(("image", 1),), optimizer=optimizer)
    run = reduce(replace(recipe, model=TOY, stages=(first, second)), tmp_path / "toy")
    assert isinstance(run.model.image, ToyImageConfig) and not isinstance(run.model.image, VitConfig)
    assert layout(run.stages[1], rules.paths_of(shapes(run.model)["params"]), run.model.towers).first_layers == (2, 0)
    train(run, tmp_path / "run")
    folders = [tmp_path / "run" / f"{number}-{stage.name}" for number, stage in enumerate(run.stages, 1)]
    kernels = [leaves(folder)["image/layers/kernel"] for folder in folders]
    moved = [not np.array_equal(*layer) for layer in zip(*kernels, strict=True)]
    assert moved == [False, False, True]
    assert load_bundle(folders[1]).config == run.model
