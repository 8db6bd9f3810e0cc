"""The installed transformers loads our files, and files of transformers and open_clip are read or refused."""

import json

import numpy as np
import pytest
from PIL import Image

from jclip.conversion.families import family_named
from jclip.conversion.families.altclip import ALTCLIP
from jclip.conversion.families.chinese_clip import CHINESE_CLIP
from jclip.conversion.hf.processor import read_preprocessing, write_hf_processor
from jclip.data.sources.synthetic import caption, translation, write_tokenizer
from jclip.errors import JclipError
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing, to_array
from jclip.tokenizers.text import load_tokenizer, wordpiece
from tests.tokenizers.strings import FIXED, varied

STRINGS = varied(500)
# Common texts, whose ids must be equal; rare strings may differ at the documented rates.
PLAIN = [
    "",
    "a photo of a cat, sitting on a windowsill!",
    "Hello   World\n it's “quoted” — they’re 3.14€ & more",
    "一只可爱的“橘猫”，坐在窗台上。",
    "日本語のテキスト ﾊﾝｶｸ ＡＢＣ",
    "[MASK] [CLS] <|endoftext|> ! !!",
    "word " * 100,
]
FAMILIES = {
    "altclip": ("xlmr", "AltCLIP", "crop"),
    "chinese-clip": ("wordpiece", "ChineseCLIP", "squash"),
    "clip": ("clip_bpe", "CLIP", "crop"),
}
OTHER = Preprocessing(size=99)


def real_tokenizer(family, folder):
    """Returns a tokenizer with the published vocabulary, except XLM-R's, which no package ships."""
    if family == "chinese-clip":
        from cn_clip.clip.bert_tokenizer import default_vocab as vocabulary
    elif family == "clip":
        from open_clip.tokenizer import default_bpe as vocabulary
    else:
        return write_tokenizer("xlmr", folder)
    return load_tokenizer(vocabulary())


def padded(tokenizer, texts):
    return np.array(tokenizer(texts, padding="max_length", truncation=True)["input_ids"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", ["small", "real"])
def test_transformers_loads_our_files(family, size, tmp_path):
    import transformers

    kind, name, resize = FAMILIES[family]
    make = real_tokenizer if size == "real" else lambda _, folder: write_tokenizer(kind, folder)
    ours, how = make(family, tmp_path / "tokenizer"), Preprocessing(size=48, mean=(0.1, 0.2, 0.3), resize=resize)
    folder = tmp_path / "model"
    folder.mkdir()
    write_hf_processor(folder, family_named(family).hf, ours, how, context_length=30)
    processor = getattr(transformers, f"{name}Processor").from_pretrained(folder)
    getattr(transformers, f"{name}Config")().save_pretrained(folder)
    by_config = transformers.AutoProcessor.from_pretrained(folder)
    assert type(processor) is type(by_config)
    texts = [*PLAIN, *(make(number) for number in range(60) for make in (caption, translation))]
    for tokenizer in (processor.tokenizer, by_config.tokenizer, transformers.AutoTokenizer.from_pretrained(folder)):
        np.testing.assert_array_equal(padded(tokenizer, texts), ours(texts, 30))
        assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (ours.pad_id, 30)

    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((120, 96), Image.Resampling.BICUBIC)
    both = processor(text=["a"], images=image, return_tensors="np", padding="max_length")
    steps = (both["pixel_values"][0].transpose(1, 2, 0) * np.array(how.std) + np.array(how.mean)) * 255
    np.testing.assert_allclose(steps, to_array(how, image), atol=4)

    assert read_preprocessing(folder, OTHER) == how
    processor.save_pretrained(tmp_path / "again")  # transformers 5 puts it elsewhere
    for written in (folder, tmp_path / "again"):
        assert read_preprocessing(written, OTHER) == how
        back = load_tokenizer(written)
        np.testing.assert_array_equal(back(STRINGS[:500], 30), ours(STRINGS[:500], 30))


@pytest.mark.parametrize("count", [3000, pytest.param(12_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("family", "most"), [("altclip", 0.0), ("chinese-clip", 0.0), ("clip", 0.002)])
def test_ids_differ_no_more_often_than_the_docstring_says(family, most, count, tmp_path):
    from transformers import AutoTokenizer

    ours = real_tokenizer(family, tmp_path / "tokenizer")
    write_hf_processor(tmp_path, family_named(family).hf, ours, Preprocessing(), 77)
    strings = varied(count)
    different = (padded(AutoTokenizer.from_pretrained(tmp_path), strings) != ours(strings, 77)).any(axis=1)
    assert different[len(FIXED) :].mean() <= most  # of the random strings


def test_a_cased_vocabulary_stays_cased(tmp_path):
    from transformers import AutoTokenizer

    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Bär", "bar"]
    wordpiece(lines).save(tmp_path / "a")
    (tmp_path / "a" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    write_hf_processor(tmp_path, CHINESE_CLIP.hf, load_tokenizer(tmp_path / "a"), Preprocessing(), 5)
    expected = [[2, 4, 5, 3, 0]]
    np.testing.assert_array_equal(load_tokenizer(tmp_path)(["Bär bar"], 5), expected)
    np.testing.assert_array_equal(padded(AutoTokenizer.from_pretrained(tmp_path), ["Bär bar"]), expected)


def test_tokenizers_and_preprocessing_that_transformers_lacks_are_refused(tmp_path):
    words = write_tokenizer("wordpiece", tmp_path / "tokenizer")
    with pytest.raises(JclipError, match="AltCLIPModel has a xlmr tokenizer, this one is wordpiece"):
        write_hf_processor(tmp_path, ALTCLIP.hf, words, Preprocessing(), 52)
    with pytest.raises(JclipError, match="transformers cannot trim images"):
        write_hf_processor(tmp_path, CHINESE_CLIP.hf, words, Preprocessing(background=(0, 0, 0), trim=True), 52)
    with pytest.raises(JclipError, match="transformers cannot turn images upright"):
        write_hf_processor(tmp_path, CHINESE_CLIP.hf, words, Preprocessing(orientation="apply"), 52)
    with pytest.raises(JclipError, match=r"does not fill .* \(train with background=None\)"):
        write_hf_processor(tmp_path, CHINESE_CLIP.hf, words, Preprocessing(background=(0, 0, 0)), 52)


SQUARE = {"height": 336, "width": 336}
CENTRE = {"do_center_crop": True, "crop_size": SQUARE}
FIRST = {"size": 224, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}


@pytest.mark.parametrize(
    ("written", "size", "resize"),
    [
        ({}, 224, "crop"),  # the defaults of the class
        (FIRST, 224, "crop"),
        ({"size": {"shortest_edge": 336}, **CENTRE, "image_processor_type": "CLIPImageProcessorFast"}, 336, "crop"),
        ({"size": SQUARE, "do_center_crop": False}, 336, "squash"),
        ({"size": SQUARE, **CENTRE}, 336, "squash"),
        ({"size": 224, "do_center_crop": False, "image_processor_type": "ChineseCLIPImageProcessor"}, 224, "squash"),
    ],
)
def test_every_schema_of_transformers_is_read(written, size, resize, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**written, "image_std": [0.5, 0.25, 1]}))
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert read_preprocessing(tmp_path, OTHER) == Preprocessing(size, CLIP_MEAN, (0.5, 0.25, 1.0), resize)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"resample": 2}, r"resample is 2 \(bilinear\), but jclip supports 3 \(bicubic\)"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"do_pad": True}, "do_pad is True"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        (
            {"size": {"shortest_edge": 256}},
            "crop_size is 224, but jclip supports 256: correct it, or move",
        ),
        ({"size": {"shortest_edge": 224}, "do_center_crop": False}, "do_center_crop is False"),
        ({"size": {"height": 224, "width": 336}}, "size is 224 x 336"),
        (
            {"size": {"height": "48"}},
            "size is '48', but must be a whole number of pixels: correct it, or move the file away",
        ),
        ({"size": {"height": 48}}, "size is None, but must be a whole number of pixels: correct it"),
        ({"size": "big"}, "size is 'big'"),
        (
            {"image_mean": [0.5, 0.5]},
            r"image_mean is \[0.5, 0.5\], but must be three numbers, one for each channel: correct it",
        ),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "image_mean is .*, but must be three numbers"),
        ({"image_std": [0, 0, 0]}, r"image_std is \[0, 0, 0\], but must be greater than 0: correct it"),
        ({"image_std": [0.5, -0.1, 0.5]}, "image_std is .*, but must be greater than 0: correct it"),
        ({"image_std": [0.5, float("inf"), 0.5]}, "image_std is .*, but must be three numbers"),
        ({"image_mean": [0.5, 10**400, 0.5]}, "image_mean is .*, but must be three numbers"),
        ({"image_std": 0.5}, "image_std is 0.5"),
        ({"image_processor_type": "ViTImageProcessor"}, "is for a ViTImageProcessor"),
    ],
)
def test_unsupported_preprocessing_is_refused_by_field(written, complaint, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    with pytest.raises(JclipError, match=rf"preprocessor_config\.json:? .*{complaint}"):
        read_preprocessing(tmp_path, OTHER)


def test_broken_json(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{“do_resize”: true}")
    with pytest.raises(JclipError, match=r"preprocessor_config\.json cannot be read \(.*\): correct it"):
        read_preprocessing(tmp_path, OTHER)
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(JclipError, match="does not hold a JSON object"):
        read_preprocessing(tmp_path, OTHER)


def test_open_clips_configuration_is_read(tmp_path):
    def read(**preprocess):
        model = {"embed_dim": 1024, "vision_cfg": {"image_size": 336}}
        record = {"model_cfg": model, "preprocess_cfg": preprocess}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(record))
        return read_preprocessing(tmp_path, OTHER)

    assert read_preprocessing(tmp_path, OTHER) is OTHER
    assert read() == Preprocessing(336, resize="crop")
    halves = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    assert read(**halves, resize_mode="squash") == Preprocessing(336, (0.5,) * 3, (0.5,) * 3, "squash")
    with pytest.raises(
        JclipError, match=r"open_clip_config\.json: interpolation is bilinear, but jclip supports bicubic: correct it$"
    ):
        read(interpolation="bilinear")
    with pytest.raises(JclipError, match="resize_mode is longest"):
        read(resize_mode="longest")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    with pytest.raises(JclipError, match="not open_clip's configuration .*: 'vision_cfg' is missing"):
        read_preprocessing(tmp_path, OTHER)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert read_preprocessing(tmp_path, OTHER) == Preprocessing(224, CLIP_MEAN, CLIP_STD, "crop")
