"""Embeddings in the shapes of OpenAI's, vLLM's and text-embeddings-inference's clients."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from jclip.serve.encoding import Item
from jclip.serve.endpoint import Endpoint, Given
from jclip.serve.fields import Field, Flag, Kind, ListOf, OneOf, Record, Schema, Text, Whole
from jclip.serve.images import ImageSource, is_image
from jclip.serve.refusals import ERROR_SCHEMA, Refusal, wrong
from jclip.serve.responses import answered, refused
from jclip.serve.service import Service

_VECTOR: Schema = {"type": "array", "items": {"type": "number"}}


class Embeddings:
    """Endpoints that encode texts and images."""

    def __init__(self, service: Service):
        self._service = service

    def endpoints(self) -> list[Endpoint]:
        """Returns the endpoints."""
        return [self._openai(), self._tei()]

    def _openai(self) -> Endpoint:
        limits, name = self._service.limits, self._service.model.name
        text = Text()  # of a text or of a data URI; a text's length is checked when it is known to be one
        url = Record({"url": Field(text, required=True)})
        part = Record(
            {
                "type": Field(Text(choices=("text", "image_url")), required=True),
                "text": Field(text),
                "image_url": Field(OneOf((url, text))),
            }
        )
        message = Record(
            {
                "role": Field(Text(choices=("user", "system", "assistant")), default="user"),
                "content": Field(OneOf((text, ListOf(part, 1))), required=True),
            }
        )
        entry: Schema = {
            "type": "object",
            "required": ["object", "index", "embedding"],
            "properties": {
                "object": {"const": "embedding"},
                "index": {"type": "integer"},
                "embedding": {"anyOf": [_VECTOR, {"type": "string"}, {"type": "null"}]},
                "error": ERROR_SCHEMA,
            },
        }
        usage = {"type": "object", "additionalProperties": {"type": "integer"}}
        return Endpoint(
            "POST",
            "/v1/embeddings",
            "createEmbedding",
            "Encodes texts and images, in the shape of OpenAI's API.",
            self._create,
            body=Record(
                {
                    "input": Field(
                        OneOf((text, ListOf(text, limits.max_items, "--max-items"))),
                        "Texts, and images as data URIs. They may be mixed.",
                    ),
                    "messages": Field(
                        ListOf(message, 1), "Instead of input, as vLLM reads it: one message with one text or image."
                    ),
                    "model": Field(Text(), f"Omit it, or give {name!r}."),
                    "modality": Field(
                        Text(choices=("text", "image")),
                        'Kind of all inputs. Without it, inputs that begin with "data:image/" are images.',
                    ),
                    "encoding_format": Field(
                        Text(choices=("float", "base64")),
                        "base64: little-endian float32.",
                        default="float",
                    ),
                    "dimensions": Field(
                        Whole(1, 1 << 20), f"Only {self._service.model.embed_dim}: vectors cannot be shortened."
                    ),
                    "user": Field(Text(), "Ignored."),
                },
                exactly_one=("input", "messages"),
            ),
            answer={
                "type": "object",
                "required": ["object", "data", "model", "usage"],
                "properties": {
                    "object": {"const": "list"},
                    "data": {"type": "array", "items": entry},
                    "model": {"type": "string"},
                    "usage": usage,
                },
            },
            errors=(404, 413, 422, 424, 429),
            about=(
                "An input that cannot be encoded has an error and the embedding null; the others have their vectors. "
                "If no input can be encoded, the response is the error of the first. Vectors are L2-normalised."
            ),
        )

    def _tei(self) -> Endpoint:
        limits = self._service.limits
        text: Kind = Text(limits.max_characters, "--max-characters")
        return Endpoint(
            "POST",
            "/embed",
            "embed",
            "Encodes texts, in the shape of text-embeddings-inference.",
            self._embed,
            body=Record(
                {
                    "inputs": Field(OneOf((text, ListOf(text, limits.max_items, "--max-items"))), required=True),
                    "normalize": Field(Flag(), "Only true: vectors are L2-normalised.", default=True),
                    "truncate": Field(
                        Flag(), "Truncate texts to the model's context; false makes longer ones an error.", default=True
                    ),
                }
            ),
            answer={"type": "array", "items": _VECTOR},
            errors=(413, 422, 424, 429),
        )

    async def _create(self, given: Given, request: Request) -> Response:
        service = self._service
        if given["model"] is not None and given["model"] not in service.names:
            raise Refusal(
                404, "model_not_found", f"model: this service has only {service.model.name!r}: omit the field"
            )
        if given["dimensions"] not in (None, service.model.embed_dim):
            raise wrong(
                "dimensions",
                f"{given['dimensions']} is not possible: the vectors have {service.model.embed_dim}, and the model was "
                "not trained to be cut. Omit the field",
            )
        items = self._from_message(given["messages"][0]) if given["messages"] else self._from_input(given)
        found = await service.encoding.encode(items)
        failed = [each for each in found if isinstance(each, Refusal)]
        if len(failed) == len(found):
            return refused(failed[0] if isinstance(given["input"], str) else failed[0].within("input[0]"))
        data = [_entry(number, each, given["encoding_format"]) for number, each in enumerate(found)]
        tokens = sum(await self._tokens([item for item in items if isinstance(item, str)]))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return answered({"object": "list", "data": data, "model": service.model.name, "usage": usage})

    def _from_input(self, given: Given) -> list[Item]:
        inputs, modality = given["input"], given["modality"]
        if isinstance(inputs, str):
            return [self._item(inputs, modality, "input")]
        return [self._item(each, modality, f"input[{number}]") for number, each in enumerate(inputs)]

    def _from_message(self, message: dict[str, Any]) -> list[Item]:
        content, where = message["content"], "messages[0].content"
        if isinstance(content, str):
            return [self._item(content, "text", where)]
        part = content[0]
        given, where = part[part["type"]], f"{where}[0].{part['type']}"
        if given is None:
            raise Refusal(422, "missing_field", f"{where} is missing")
        if part["type"] == "text":
            return [self._item(given, "text", where)]
        return [ImageSource(given if isinstance(given, str) else given["url"])]

    def _item(self, text: str, modality: str | None, where: str) -> Item:
        if modality == "image" or (modality is None and is_image(text)):
            return ImageSource(text)
        return Text(self._service.limits.max_characters, "--max-characters").read(text, where)

    async def _embed(self, given: Given, request: Request) -> Response:
        if not given["normalize"]:
            raise wrong("normalize", "false is not possible: the vectors are L2-normalised. Omit the field")
        inputs = given["inputs"]
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not given["truncate"]:
            longest = self._service.model.bundle.context_length
            for number, tokens in enumerate(await self._tokens(texts, longest + 1)):
                if tokens > longest:
                    raise Refusal(413, "context_length", f"inputs[{number}]: more than {longest} tokens: set truncate")
        found = await self._service.encoding.encode(texts)
        for number, each in enumerate(found):
            if isinstance(each, Refusal):
                raise each.within(f"inputs[{number}]")
        return answered([each.tolist() for each in found if not isinstance(each, Refusal)])

    async def _tokens(self, texts: Sequence[str], most: int | None = None) -> list[int]:
        """Returns the number of tokens of each text, counted in a thread because long texts take long."""
        if not texts:
            return []
        bundle = self._service.model.bundle
        return [
            len(ids) for ids in await asyncio.to_thread(bundle.tokenizer.encode, texts, most or bundle.context_length)
        ]


def _entry(number: int, found: np.ndarray | Refusal, form: str) -> dict[str, Any]:
    record: dict[str, Any] = {"object": "embedding", "index": number}
    if isinstance(found, Refusal):
        return record | {"embedding": None, "error": found.within(f"input[{number}]").as_error()}
    if form == "float":
        return record | {"embedding": found.tolist()}
    return record | {"embedding": base64.b64encode(found.astype("<f4").tobytes()).decode()}
