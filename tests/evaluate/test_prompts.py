import json

import cn_clip.eval.cvinw_zeroshot_templates as theirs
import open_clip
import pytest
from cn_clip.eval.imagenet_zeroshot_templates import imagenet_classnames

from jclip.evaluate.datasets.benchmarks import BENCHMARKS
from jclip.evaluate.prompts import LANGUAGES, imagenet_names, load_prompts

M18 = {"ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "uk", "vi", "zh"}


def test_every_language_of_altclip_m18_has_prompts():
    assert set(LANGUAGES) == M18
    kinds = {benchmark.kind for benchmark in BENCHMARKS.values()}
    seen = set()
    for language in LANGUAGES:
        for kind in kinds:
            found = load_prompts(language, kind=kind)
            assert found.language == language
            assert len(set(found.templates)) == len(found.templates) >= (7 if kind == "general" else 2)
            assert all(template.count("{}") == 1 for template in found.templates)
        assert (
            load_prompts(language, kind="flower")
            != load_prompts(language)
            == load_prompts(language, kind="of no such kind")
        )
        seen.add(load_prompts(language).templates)
    assert len(seen) == 18


@pytest.mark.parametrize(
    ("dataset", "functions"),
    [
        ("fgvc-aircraft-2013b-variants102", theirs.aircraft_templates),
        ("food-101", theirs.food_templates),
        ("oxford-flower-102", theirs.flower_templates),
        ("eurosat_clip", theirs.eurosat_templates),
        ("resisc45_clip", theirs.eurosat_templates),
        ("country211", theirs.country211_templates),
        ("cifar-100", theirs.openai_templates),
        ("imagenet", theirs.openai_templates),
    ],
)
def test_cn_clips_prompts_of_each_data_set(dataset, functions):
    found = load_prompts("cn_clip", dataset)
    assert [template.replace("{}", "猫") for template in found.templates] == [function("猫") for function in functions]
    assert found.language == "zh"


def test_prompts_of_installed_packages():
    assert len(load_prompts("cn_clip:aircraft").templates) == len(theirs.aircraft_templates)
    found = load_prompts("open_clip")
    assert [one.replace("{}", "cat") for one in found.templates] == [
        f("cat") for f in open_clip.OPENAI_IMAGENET_TEMPLATES
    ]
    assert load_prompts("open_clip:simple").templates[0].replace("{}", "cat") == open_clip.SIMPLE_IMAGENET_TEMPLATES[0](
        "cat"
    )
    assert imagenet_names("cn_clip") == imagenet_classnames
    assert imagenet_names("open_clip") == list(open_clip.IMAGENET_CLASSNAMES)


def test_prompts_from_a_file(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"language": "eo", "general": ["foto de {}"], "pet": ["mia {}"]}))
    assert load_prompts(str(file)).templates == ("foto de {}",)
    assert load_prompts(str(file), kind="pet").templates == ("mia {}",)
    file.write_text(json.dumps({"general": ["foto de {}", "foto"]}))
    with pytest.raises(ValueError, match=r"mine\.json, 'general', sentence 2: 'foto' must hold \{\} once"):
        load_prompts(str(file))
    for text, message in (
        ("[]", "holds no prompts"),
        ('{"general": []}', "'general' must be a list of sentences with .* at least one"),
        ('{"general": ["\\ud83d {}"]}', "sentence 1: .* must hold"),
        ("[" * 100_000, "cannot be read as prompts .it is nested too deep"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_prompts(str(file))


def test_unknown_prompts_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"there are no prompts 'xx': choose a language \(ar, de"):
        load_prompts("xx")
    with pytest.raises(ValueError, match="cn_clip has no prompts 'boats': it has openai"):
        load_prompts("cn_clip:boats")
    with pytest.raises(ValueError, match="open_clip has no prompts 'boats'"):
        load_prompts("open_clip:boats")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="cn_clip is not installed: install it with pip install cn-clip"):
        load_prompts("cn_clip")
