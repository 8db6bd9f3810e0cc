"""Requests made from the service's own description, by schemathesis."""

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serve.services import app_of, client_of, image_uri, serving, wait_until_warm

EXAMPLES = 15
REFUSED = [400, 404, 413, 422]  # 413 is not among the usual ones
CONFIG = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}})
IMAGE = image_uri(1)
schemathesis.openapi.format("image-uri", st.just(IMAGE))


@pytest.fixture(scope="module")
def api(place):
    app = app_of(place)
    with serving(app) as url:
        wait_until_warm(app.state.service.batcher)
        yield schemathesis.openapi.from_url(f"{url}/openapi.json", config=CONFIG)


OPERATIONS = (
    *("POST /v1/embeddings", "POST /embed", "POST /classify", "POST /search", "GET /duplicates", "GET /filters"),
    *("GET /thumb/{id}", "GET /image/{id}", "GET /v1/models", "GET /info", "GET /progress", "GET /health"),
    *("GET /metrics", "GET /openapi.json"),
)
NOT_IN_A_SCHEMA = {"invalid_value", "invalid_image", "model_not_found", "no_entry", "missing_field", "items_limit"}
"""Codes of errors that a request of the right shape may have."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_description_is_true(api, name):
    """Valid requests are accepted unless their content is wrong, invalid ones refused, and all answers as described."""
    method, path = name.split()
    operation, statuses = api[path][method], []

    @hypothesis.settings(max_examples=EXAMPLES)
    @hypothesis.given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def valid(case):
        response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
        statuses.append(response.status_code)
        if response.status_code >= 400:
            assert response.json()["error"]["code"] in NOT_IN_A_SCHEMA

    @hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def invalid(case):
        case.call_and_validate()

    valid()
    assert 200 in statuses
    if operation.body or operation.query:
        invalid()


def test_every_operation_is_tested(api):
    found = {each.ok().label for each in api.get_all_operations()}  # without that of the description
    assert found | {"GET /openapi.json"} == set(OPERATIONS)


def test_every_path_is_described(client):
    described = set(client.get("/openapi.json").json()["paths"])
    routes = {route.path for route in client.app.routes}
    assert routes - described == {"/", "/page/{name:path}"} and described <= routes


def test_the_key_is_described(place):
    paths = client_of(place, key="k").get("/openapi.json").json()["paths"]
    open_paths = {path for path, methods in paths.items() if all("security" not in each for each in methods.values())}
    assert open_paths == {"/health", "/openapi.json"}
