import numpy as np
import pytest

from jclip.evaluate.prompts import load_prompts
from tests.serve.services import TOLERANCE, drawn, error_of, image_uri, uri

LABELS = ["猫", "狗", "红色"]


def by_hand(model, number, templates):
    """Returns cosines and probabilities in float64."""
    classes = []
    for label in LABELS:
        mean = model.encode_text([each.replace("{}", label) for each in templates]).astype(np.float64).mean(axis=0)
        classes.append(mean / np.linalg.norm(mean))
    cosines = np.array(classes) @ model.encode_image([drawn(number)])[0].astype(np.float64)
    powers = np.exp(model.similarity_scale * cosines)
    return cosines, powers / powers.sum()


@pytest.mark.parametrize(
    ("more", "templates"),
    [
        ({}, ["{}"]),
        ({"templates": ["红色的{}", "{}"]}, ["红色的{}", "{}"]),
        ({"prompts": "zh"}, load_prompts("zh").templates),
    ],
)
def test_cosines_and_probabilities(client, model, more, templates):
    body = {"images": [image_uri(1), image_uri(2)], "labels": LABELS, **more}
    for _ in range(2):  # the second time the labels are known
        found = client.post("/classify", json=body).json()
        assert found["labels"] == LABELS and found["scale"] == model.similarity_scale
        for number, result in enumerate(found["results"]):
            cosines, probabilities = by_hand(model, number + 1, templates)
            assert result["index"] == number and result["label"] == LABELS[cosines.argmax()]
            np.testing.assert_allclose(result["cosines"], cosines, atol=TOLERANCE)
            np.testing.assert_allclose(result["probabilities"], probabilities, rtol=1e-4)


def test_a_damaged_image_costs_no_other(client):
    found = client.post("/classify", json={"images": [uri(b"x"), image_uri(1)], "labels": LABELS}).json()["results"]
    assert found[0].keys() == {"index", "error"} and found[1]["label"] in LABELS
    assert found[0]["error"]["message"].startswith("images[0]: it cannot be read as an image")
    assert error_of(client.post("/classify", json={"images": uri(b"x"), "labels": LABELS}), 422)["message"].startswith(
        "images: it cannot"
    )


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ({"labels": []}, 400, "labels: the list is empty"),
        ({"templates": ["a"]}, 422, "templates[0]: it must hold {} once"),
        ({"templates": ["{}"], "prompts": "zh"}, 422, "prompts: give templates or prompts, not both"),
        ({"prompts": "xx"}, 422, "prompts: 'xx' is not one of ar, "),
        ({"label": ["a"]}, 422, "label is not a field: did you mean labels?"),
        (
            {"labels": ["a"] * 129, "templates": ["a {}", "b {}"]},
            413,
            "labels: 129 labels and 2 templates make 258 texts, but the limit is 256 (--max-items)",
        ),
    ],
)
def test_a_wrong_request_says_what_is_wrong(client, more, status, message):
    response = client.post("/classify", json={"images": image_uri(1), "labels": LABELS} | more)
    assert error_of(response, status)["message"].startswith(message)
