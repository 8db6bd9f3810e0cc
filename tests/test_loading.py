"""`jclip.load` of any source: converted once into the cache, by one process, without torch or network afterwards."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jclip
from jclip import conversion, loading, rules
from jclip.bundle import open_bundle
from jclip.cache import models
from jclip.encoding import image_encoder
from jclip.errors import JclipError
from jclip.inference import Model
from jclip.io import tensors
from jclip.io.safetensors import open_safetensors, write_safetensors
from jclip.loading import local_bundle
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken
from tests.conversion.broken import WEIGHTS
from tests.conversion.hubs import Hub, contents, without_hub

ROOT = Path(__file__).parents[1]
TEXTS = ["red apple 7", "绿苹果 3", ""]
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 30, 30, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Checkpoint of a Chinese-CLIP. Read only."""
    return broken.write_checkpoint(tmp_path_factory.mktemp("whole") / "source", "chinese-clip", broken.CHINESE_CLIP)


@pytest.fixture(scope="module")
def bundle(whole):
    """Its bundle. Read only."""
    conversion.convert(str(whole), whole.parent / "bundle", report=lambda what: None)
    return whole.parent / "bundle"


@pytest.fixture
def source(whole, tmp_path):
    """Copy of the checkpoint, to change."""
    shutil.copytree(whole, tmp_path / "source")
    return tmp_path / "source"


def converted(source):
    """Returns the bundle's folder, and the lines that were said."""
    lines = []
    return local_bundle(source, lines.append), lines


def test_a_checkpoint_is_converted_once_and_says_so(source, bundle, cache, capsys):
    model = jclip.load(source)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"converting {source}, once; the bundle is kept in ({cache}/models/\S+/bundle)", line)
    again = jclip.load(str(source))
    assert capsys.readouterr() == ("", "")
    expected = jclip.load(bundle)
    for each in (model, again):
        np.testing.assert_array_equal(each.encode_text(TEXTS), expected.encode_text(TEXTS))
        np.testing.assert_array_equal(each.encode_image(PICTURES), expected.encode_image(PICTURES))
        assert each.identity == expected.identity
    (entry,) = models.entries()
    assert (entry.record["source"], entry.record["identity"]) == (str(source), model.identity)
    assert json.loads((entry.content / "passport.json").read_text())["sources"][0]["comparison"]["compared"]


def test_equal_files_elsewhere_share_a_conversion_and_changed_ones_do_not(source, tmp_path):
    folder, _ = converted(source)
    shutil.copytree(source, tmp_path / "elsewhere")
    assert converted(tmp_path / "elsewhere") == (folder, [])
    (source / "README.md").write_text("of no use here")
    assert converted(source) == (folder, [])
    weights = {key: tensor.read() for key, tensor in open_safetensors(source / WEIGHTS).items()}
    write_safetensors(source / WEIGHTS, {key: value * 2 for key, value in weights.items()})
    other, lines = converted(source)
    assert other != folder and len(lines) == 1
    assert converted(tmp_path / "elsewhere") == (folder, [])


def test_a_file_with_a_usual_name_is_read_with_the_files_beside_it(source):
    folder, _ = converted(source)
    assert converted(source / WEIGHTS) == (folder, [])
    broken.change_json(source / "config.json", lambda said: said.update(logit_scale_init_value=2.0))
    assert len(converted(source / WEIGHTS)[1]) == 1


def test_a_model_knows_its_source(bundle, source, tmp_path, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    assert jclip.load(bundle.name, tower="text").source == str(bundle.resolve())
    loaded = jclip.load(source)
    assert loaded.source == str(source.resolve())  # not the folder of the conversion
    assert Model(loaded.bundle).source == "" and loaded.changed(context_length=4).source == ""


def test_a_bundle_is_not_converted(bundle, cache):
    assert converted(bundle) == (bundle, [])
    assert converted(str(bundle)) == (bundle, [])
    assert not (cache / "models").exists()


@pytest.mark.parametrize("name", ["config.json", "parameters.safetensors", "tokenizer/vocab.txt"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_entry_is_noticed_and_made_again(name, damage, bundle, source, monkeypatch):
    """Does not convert three towers nine times: a conversion copies the bundle."""

    def copied(name, place, report):
        shutil.copytree(bundle, place)
        return {"sources": [{"commit": None}]}

    monkeypatch.setattr(loading, "convert", copied)
    folder, _ = converted(source)
    before = broken.listing(folder)
    file = folder / name
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data.replace(b"1", b"2").replace(b"a", b"b"))
    again, (line,) = converted(source)
    assert "because its copy in the cache is damaged; the bundle is kept in" in line
    assert again == folder and broken.listing(folder) == before


def test_an_entry_without_its_record_is_made_again(source, bundle, monkeypatch):
    folder, _ = converted(source)
    for record in ("{", "[]", "{}", None):
        file = folder.parent / "source.json"
        file.unlink() if record is None else file.write_text(record)
        assert len(converted(source)[1]) == 1
    assert converted(source) == (folder, [])


# Loads the sources that it reads, one a line.
LOAD = """
import sys, jclip
for line in sys.stdin:
    print(jclip.load(line.strip()).identity, flush=True)
"""
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None  # importing it fails\n"
WITHOUT_BOTH = WITHOUT_TORCH + "sys.modules['huggingface_hub'] = None\n"


def started(program, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        cwd=ROOT,
    )


def ended(process, *sources, code=0):
    out, err = process.communicate("".join(f"{source}\n" for source in sources))
    assert process.returncode == code, err
    return out.split(), [line for line in err.splitlines() if line and not line.startswith("Fetching ")]


def test_two_processes_at_once_convert_once(source, bundle, cache):
    processes = [started(WITHOUT_BOTH + LOAD) for _ in range(2)]
    for process in processes:
        process.stdin.write(f"{source}\n")
        process.stdin.flush()
    found = [ended(process) for process in processes]
    assert [out for out, _ in found] == [[jclip.load(bundle).identity]] * 2
    lines = [line for _, err in found for line in err]
    assert sum("converting" in line for line in lines) == 1
    assert {re.sub("^.*: ", "", line) for line in lines if "converting" not in line} <= {"waiting for another process"}
    assert len(list((cache / "models").glob("[!.]*"))) == 1 and not list((cache / "models").glob(".*.partial"))


KILLED = """
import os, signal, sys
from jclip import loading

def convert(name, place, report):
    place.mkdir()
    (place / "parameters.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

loading.convert = convert
loading.load(sys.argv[1])
"""


def test_a_killed_conversion_leaves_nothing_that_counts(source, cache):
    ended(started(KILLED, source), code=-9)
    assert not models.entries() and len(list((cache / "models").glob(".*.partial"))) == 1
    folder, (line,) = converted(source)
    assert ", once; the bundle" in line
    assert jclip.load(folder).encode_text(TEXTS).shape == (3, 13)
    assert not list((cache / "models").glob(".*.partial"))


def test_a_failed_conversion_leaves_nothing(source, cache):
    (source / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(JclipError, match="truncated"):
        local_bundle(source, lambda line: None)
    assert not models.entries() and not list((cache / "models").glob(".*.partial"))


def test_a_cache_that_cannot_be_written_is_named(source, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "file"))
    says = (
        rf"^{source} cannot be converted into the cache \({tmp_path}/file/models cannot be made \(Not a directory\).*"
    )
    with pytest.raises(JclipError, match=says + "set JCLIP_CACHE to a folder that can be written"):
        jclip.load(source)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("missing", "missing is not a bundle: there is no such folder. Train one, or convert a checkpoint"),
        ("empty", "empty is not a bundle: it has no config.json"),
        ("text.md", "text.md is no"),
        ("nothing.pt", "nothing.pt.* it is empty: fetch it again"),
        ("two", "two holds several weight files: name one of a.pt, b.pt"),
        ("hf://a/b/c", "hf://a/b/c is not a repository: write hf://ORG/NAME or hf://ORG/NAME@REVISION"),
        ("hf://nobody/nothing", "hf://nobody/nothing cannot be fetched .*offl"),
    ],
)
def test_a_bad_source_gives_one_clear_line(place, says, tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for file in ("text.md", "nothing.pt", "two/a.pt", "two/b.pt"):
        (tmp_path / file).write_text("words" if file == "text.md" else "")
    for function in (jclip.load, local_bundle):
        if function is local_bundle and place in ("missing", "empty"):
            continue  # whoever opens it says what is missing
        with pytest.raises(JclipError) as caught:
            function(place)
        assert re.search(says, str(caught.value)) and "\n" not in str(caught.value)
    assert not models.entries()


def test_options_that_a_source_needs_are_those_of_convert(source):
    file = source / "vocab.txt"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:30]))
    with pytest.raises(JclipError, match=rf"--tokenizer.* \(an option of `jclip convert {source} DST`; then use DST\)"):
        local_bundle(source, lambda line: None)


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    """Files of a BERT, and with other weights."""
    place = broken.write_checkpoint(tmp_path_factory.mktemp("makers") / "model", "bert", TextEncoderConfig(broken.BERT))
    shutil.rmtree(place / "made-wordpiece")
    weights = {key: tensor.read() for key, tensor in open_safetensors(place / WEIGHTS).items()}
    first = contents(place)
    write_safetensors(place / WEIGHTS, {key: value / 2 for key, value in weights.items()})
    return {"main": first, "newer": contents(place)}


def test_a_repository_is_converted_by_commit_and_loads_offline(revisions, tmp_path, cache):
    hub = Hub(dict(revisions))
    name, pinned = "hf://makers/model", f"hf://makers/model@{hub.commits['main']}"
    with hub.serving(tmp_path / "hub") as environment:
        process = started(WITHOUT_TORCH + LOAD, **environment)

        def identity():
            hub.served.clear()
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        first = identity()
        assert WEIGHTS in hub.served
        assert identity() == first and not hub.served  # it asks for the commit alone
        hub.commits["main"], hub.revisions["main"] = hub.commits["newer"], revisions["newer"]
        second = identity()
        assert second != first and WEIGHTS in hub.served
        _, lines = ended(process)
    kept = rf"converting {name}, once; the bundle is kept in {cache}/models/makers--model\..*"
    assert len(lines) == 2 and all(re.fullmatch(kept, line) for line in lines)
    shutil.rmtree(tmp_path / "hub")  # the hub's own cache is not needed
    offline = without_hub(tmp_path / "hub")
    found, (line,) = ended(started(WITHOUT_BOTH + LOAD, **offline), pinned, name)
    assert found == [first, second]
    used = f"The conversion of commit {hub.commits['newer']} is used"
    assert line.startswith("huggingface_hub is not installed: ") and line.endswith(used)
    found, (line,) = ended(started(LOAD, **offline), name)
    assert found == [second] and re.fullmatch(rf"{name} cannot be fetched \(.*refused\).*\. {used}", line)


def test_a_repository_in_the_hubs_cache_converts_offline(revisions, tmp_path):
    hub = Hub(revisions)
    with hub.serving(tmp_path / "hub") as environment:
        fetch = "import sys; from jclip.conversion.hf.hub import fetch; fetch(sys.argv[1])"
        ended(started(fetch, "hf://makers/model", **environment))
    found, (line,) = ended(started(WITHOUT_TORCH + LOAD, **without_hub(tmp_path / "hub")), "hf://makers/model")
    assert ", once; the bundle is kept in" in line and re.fullmatch("[0-9a-f]{64}", *found)


def bytes_of(tensors, beginnings):
    return sum(
        lazy.dtype.itemsize * int(np.prod(lazy.shape)) for path, lazy in tensors.items() if path.startswith(beginnings)
    )


@pytest.mark.parametrize(("tower", "other"), [("image", "text"), ("text", "image")])
def test_one_tower_reads_only_its_own_tensors(tower, other, bundle, monkeypatch):
    whole = jclip.load(bundle)
    read = []

    def counted(block, *more, own=tensors._fill):
        read.append(block.size)
        own(block, *more)

    monkeypatch.setattr(tensors, "_fill", counted)
    open_bundle(bundle)
    header, read[:] = sum(read), []
    model = jclip.load(bundle, tower=tower)
    stored = open_bundle(bundle).tensors()
    assert sum(read) == 2 * header + bytes_of(stored, (f"{tower}/", "logit_scale"))
    assert model.variables["params"].keys() == {tower, "logit_scale"}
    encode = {"image": ("encode_image", PICTURES), "text": ("encode_text", TEXTS)}
    function, inputs = encode[tower]
    np.testing.assert_array_equal(getattr(model, function)(inputs), getattr(whole, function)(inputs))
    function, inputs = encode[other]
    says = (
        f'loaded with its {tower} tower alone, which cannot encode {other}s: load it with tower="{other}", or with both'
    )
    with pytest.raises(JclipError, match=says):
        getattr(model, function)(inputs)
    assert model.similarity_scale == whole.similarity_scale
    assert model.identity == whole.identity
    again = pickle.loads(pickle.dumps(model))
    assert again.tower == tower and again.identity == whole.identity


def test_a_model_of_one_tower_saves_all(bundle, tmp_path):
    jclip.save(jclip.load(bundle, tower="text", dtype="bfloat16"), tmp_path / "copy")
    file = "parameters.safetensors"
    assert (tmp_path / "copy" / file).read_bytes() == (bundle / file).read_bytes()
    assert jclip.load(tmp_path / "copy").identity == jclip.load(bundle).identity


def test_bfloat16_halves_the_parameters_and_gives_float32_features(bundle):
    whole, half = jclip.load(bundle), jclip.load(bundle, dtype="bfloat16")
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) for model in (whole, half)]
    assert sizes[1] == (sizes[0] - 4) / 2 + 4  # logit_scale stays float32
    assert {leaf.dtype for path, leaf in rules.paths_of(half.params).items() if "/" in path} == {
        jnp.dtype(jnp.bfloat16)
    }
    compiled = image_encoder(half.bundle.config, half.bundle.preprocessing, half._compute)
    assert "bf16" in compiled.lower(half.variables, PICTURES).as_text()
    for name, inputs in (("encode_image", PICTURES), ("encode_text", TEXTS)):
        ours, exact = getattr(half, name)(inputs), getattr(whole, name)(inputs)
        assert ours.dtype == np.float32 and not np.array_equal(ours, exact)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
        assert (ours * exact).sum(axis=1).min() > 0.999
    assert (half.identity, half.similarity_scale) == (whole.identity, whole.similarity_scale)


def test_an_impossible_tower_or_dtype_is_refused(bundle, tmp_path):
    with pytest.raises(JclipError, match="tower is 'audio', but this bundle has image and text: give one, or None"):
        jclip.load(bundle, tower="audio")
    with pytest.raises(JclipError, match="dtype is 'float16', but must be float32 or bfloat16"):
        jclip.load(bundle, dtype="float16")
    broken.write_bundle(tmp_path / "text" / "bundle", "bert", TextEncoderConfig(broken.BERT))
    with pytest.raises(JclipError, match="tower is 'image', but this bundle has text: give one"):
        jclip.load(tmp_path / "text" / "bundle", tower="image")
    assert jclip.load(tmp_path / "text" / "bundle", tower="text").encode_text(TEXTS).shape == (3, 36)


def test_the_batch_size_is_that_of_the_model(bundle):
    with pytest.raises(JclipError, match="batch_size is 0, but must be 1 or more"):
        jclip.load(bundle, batch_size=0)
    assert jclip.load(bundle, batch_size=2).encode_text(TEXTS).shape == (3, 13)
