"""Zero-shot classification of images with labels that the client gives."""

from collections import OrderedDict
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from jclip.evaluate.metrics.zero_shot import classifier, cosines, softmax
from jclip.evaluate.prompts import LANGUAGES, load_prompts
from jclip.serve.encoding import Item
from jclip.serve.endpoint import Endpoint, Given
from jclip.serve.fields import Field, ListOf, OneOf, Record, Schema, Text
from jclip.serve.images import ImageSource
from jclip.serve.refusals import ERROR_SCHEMA, Refusal, over_limit, wrong
from jclip.serve.responses import answered, refused
from jclip.serve.service import Service

_KEPT = 64
"""Number of label sets whose vectors are kept, so that a client may send one image after the other."""


class Classifying:
    """Endpoint that classifies."""

    def __init__(self, service: Service):
        self._service = service
        self._kept: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()

    def endpoints(self) -> list[Endpoint]:
        """Returns the endpoint."""
        limits = self._service.limits
        text, image = Text(limits.max_characters, "--max-characters"), Text(form="image-uri")
        numbers: Schema = {"type": "array", "items": {"type": "number"}}
        result: Schema = {
            "type": "object",
            "required": ["index"],
            "properties": {
                "index": {"type": "integer"},
                "label": {"type": "string"},
                "cosines": numbers,
                "probabilities": numbers,
                "error": ERROR_SCHEMA,
            },
        }
        return [
            Endpoint(
                "POST",
                "/classify",
                "classify",
                "Compares images with labels.",
                self._classify,
                body=Record(
                    {
                        "images": Field(
                            OneOf((image, ListOf(image, limits.max_items, "--max-items"))),
                            "Data URIs.",
                            required=True,
                        ),
                        "labels": Field(ListOf(text, limits.max_items, "--max-items"), "Names.", required=True),
                        "templates": Field(
                            ListOf(text, limits.max_items, "--max-items"),
                            "Sentences with {} for the label, whose vectors are averaged. By default the label alone.",
                            example=["a photo of a {}", "a drawing of a {}"],
                        ),
                        "prompts": Field(
                            Text(choices=LANGUAGES), "Instead of templates: jclip's own sentences in this language."
                        ),
                    },
                    closed=True,
                ),
                answer={
                    "type": "object",
                    "required": ["labels", "results", "scale"],
                    "properties": {
                        "labels": {"type": "array", "items": {"type": "string"}},
                        "results": {"type": "array", "items": result},
                        "scale": {"type": "number"},
                    },
                },
                errors=(413, 422, 424, 429),
                about=(
                    "cosines and probabilities are in the order of the labels. The probabilities are the softmax over "
                    "the labels of scale times the cosines; scale is the model's similarity_scale, which training "
                    "learned. They compare the labels given: that no label fits, they cannot say; low cosines can. An "
                    "image that cannot be read has an error; the others have their results."
                ),
            )
        ]

    async def _classify(self, given: Given, request: Request) -> Response:
        service = self._service
        single = isinstance(given["images"], str)
        images = [ImageSource(each) for each in ([given["images"]] if single else given["images"])]
        labels, templates = given["labels"], self._templates(given)
        if len(labels) * len(templates) > service.limits.max_items:
            found = f"{len(labels)} labels and {len(templates)} templates make {len(labels) * len(templates)} texts"
            raise over_limit("labels", found, str(service.limits.max_items), "--max-items")
        classes_cd = await self._classes(tuple(labels), tuple(templates))
        encoded = await service.encoding.encode(images)
        failed = [each for each in encoded if isinstance(each, Refusal)]
        if len(failed) == len(encoded):
            return refused(failed[0].within("images" if single else "images[0]"))
        scale = service.model.similarity_scale
        results = [self._result(number, each, classes_cd, labels, scale) for number, each in enumerate(encoded)]
        return answered({"labels": labels, "results": results, "scale": scale})

    @staticmethod
    def _result(
        number: int, encoded: np.ndarray | Refusal, classes_cd: np.ndarray, labels: list[str], scale: float
    ) -> dict[str, Any]:
        if isinstance(encoded, Refusal):
            return {"index": number, "error": encoded.within(f"images[{number}]").as_error()}
        cosines_c = cosines(encoded[None], classes_cd)[0].astype(np.float64)
        probabilities_c = softmax(scale * cosines_c[None])[0]
        return {
            "index": number,
            "label": labels[int(cosines_c.argmax())],
            "cosines": cosines_c.tolist(),
            "probabilities": probabilities_c.tolist(),
        }

    @staticmethod
    def _templates(given: Given) -> list[str]:
        """Returns the sentences with {} for a label. Raises Refusal if one lacks it, or they are given twice."""
        if given["prompts"] is not None:
            if given["templates"] is not None:
                raise wrong("prompts", "give templates or prompts, not both")
            return list(load_prompts(given["prompts"]).templates)
        templates: list[str] = given["templates"] or ["{}"]
        for number, template in enumerate(templates):
            if template.count("{}") != 1:
                raise wrong(f"templates[{number}]", "it must hold {} once")
        return templates

    async def _classes(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
        """Returns the (c, d) vectors of the labels. Raises Refusal if one cannot be encoded."""
        name = (labels, templates)
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        sentences: list[Item] = [template.replace("{}", label) for label in labels for template in templates]
        found = dict(zip(sentences, await self._service.encoding.encode(sentences), strict=True))
        for each in found.values():
            if isinstance(each, Refusal):
                raise each.within("labels")
        classes_cd = classifier(lambda some: np.stack([found[each] for each in some]), labels, templates)  # type: ignore[misc]
        self._kept[name] = classes_cd
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return classes_cd
