"""Without --prompts, the prompts are in the language of the class names."""

import json

import numpy as np
import pytest

from jclip.evaluate.datasets.classes import ClassSet
from jclip.evaluate.datasets.opening import names_language, open_classification
from jclip.evaluate.languages import language_of
from tests.evaluate.cn_clip_data import png


@pytest.mark.parametrize(
    ("names", "language"),
    [
        (["猫", "狗"], "zh"),
        (["红色的苹果", "iPhone 15"], "en"),  # more Latin letters than Chinese characters
        (["红色的苹果手机", "iPhone"], "zh"),
        (["犬", "りんご"], "ja"),
        (["cat", "Straße"], "en"),
        (["кошка"], "ru"),
        (["고양이"], "ko"),
        (["قطة"], "ar"),
        (["12", "7"], "en"),
        ([], "en"),
    ],
)
def test_language_of_names(names, language):
    assert language_of(names) == language


def folder_of(place, *classes):
    for number, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        (place / name / "1.png").write_bytes(png(number))
    return place


def test_chinese_folders_get_chinese_prompts(tmp_path):
    (one,) = open_classification(folder_of(tmp_path / "data", "猫", "狗")).ensembles
    assert one.language == one.title == "zh" and set(one.names) == {"猫", "狗"}
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in template) for template in one.templates)
    (other,) = open_classification(tmp_path / "data", ensembles=["en"]).ensembles
    assert other.language == "en"


def test_label_files_decide_the_language(tmp_path):
    data = folder_of(tmp_path / "data", "0", "1")
    (data / "label_cn.txt").write_text("猫\n狗\n", encoding="utf-8")
    assert open_classification(data).ensembles[0].names == ("猫", "狗")
    (data / "classes.en.txt").write_text("cat\ndog\n", encoding="utf-8")
    assert open_classification(data).ensembles[0].names == ("cat", "dog")  # English if there are both
    (tmp_path / "mine.txt").write_text("小猫\n小狗\n", encoding="utf-8")
    (one,) = open_classification(data, classes=str(tmp_path / "mine.txt")).ensembles
    assert (one.language, one.names) == ("zh", ("小猫", "小狗"))


def test_the_language_of_names_in_the_data_set():
    truth = np.eye(2, dtype=bool)
    both = ClassSet("s", [], truth, ("0", "1"), labels={"en": ["cat", "dog"], "zh": ["猫", "狗"]})
    assert names_language(both) == "en"
    assert names_language(ClassSet("s", [], truth, ("0", "1"), labels={"zh": ["猫", "狗"]})) == "zh"
    assert names_language(both, "cn_clip") == "zh" and names_language(both, "open_clip") == "en"


def test_default_prompts_round_trip_through_json():
    from jclip.config import from_json, to_json
    from jclip.evaluators import Classification

    one = Classification("things", "data")
    assert one.prompts == () and from_json(Classification, json.loads(json.dumps(to_json(one)))) == one
