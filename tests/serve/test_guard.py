import pytest

from jclip.serve.guard import host_name
from tests.serve.services import client_of, error_of

KEY = "s3cret"


@pytest.fixture(scope="module")
def keyed(place):
    with client_of(place, key=KEY) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, False),
        ({"Authorization": f"Bearer {KEY}"}, True),
        ({"Authorization": f"bearer  {KEY} "}, True),
        ({"Authorization": f"Basic {KEY}"}, False),
        ({"Authorization": KEY}, False),
        ({"Authorization": f"Bearer {KEY}x"}, False),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, False),
        ({"Authorization": "Bearer "}, False),
        ({"Authorization": b"Bearer \xff"}, False),
        ({"X-Api-Key": KEY}, False),
    ],
)
@pytest.mark.parametrize("path", ["/info", "/metrics", "/thumb/1", "/image/1", "/duplicates", "/v1/models", "/nowhere"])
def test_the_key_is_needed(keyed, path, headers, passes):
    response = keyed.get(path, headers=headers)
    if passes:
        assert response.status_code == (404 if path == "/nowhere" else 200)
    else:
        assert error_of(response, 401)["code"] == "invalid_key" and response.headers["www-authenticate"] == "Bearer"


def test_the_key_is_compared_before_a_body_is_read(keyed):
    for path in ("/search", "/v1/embeddings", "/embed", "/classify"):
        assert error_of(keyed.post(path, content="{"), 401)["type"] == "authentication_error"


def test_the_page_and_the_description_need_no_key(keyed):
    assert keyed.get("/health").status_code in (200, 503) and keyed.get("/openapi.json").status_code == 200
    for path in ("/", "/page/x.js"):
        assert keyed.get(path).status_code in (200, 404)


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:8000", True),
        ("photos.example:443", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:80", False),
        ("", False),
    ],
)
def test_only_known_names_of_a_local_service(place, host, passes):
    client = client_of(place, hosts=frozenset({"photos.example"}))
    response = client.get("/info", headers={"Host": host})
    if passes:
        assert response.status_code == 200
    else:
        assert error_of(response, 403)["code"] == "wrong_host"


def test_any_name_of_a_service_elsewhere(place):
    assert client_of(place, hosts=None).get("/info", headers={"Host": "photos.example"}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("http://127.0.0.1", True),
        ("http://localhost:3000", True),
        ("https://evil.example", False),
        ("null", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://[", False),
    ],
)
def test_pages_of_other_sites_are_refused(client, origin, passes):
    response = client.get("/info", headers={"Origin": origin})
    assert response.status_code == (200 if passes else 403)
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_bodies_that_another_site_could_send_are_refused(client, kind):
    response = client.post("/search", content=b'{"text":"a"}', headers={"Content-Type": kind} if kind else {})
    assert error_of(response, 415)["message"].endswith("Content-Type: application/json")


@pytest.mark.parametrize("path", ["/info", "/nowhere", "/thumb/1", "/thumb/99", "/health"])
def test_every_response_has_the_security_headers(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' data: blob:;") and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin" and headers["referrer-policy"] == "no-referrer"


def test_refusals_have_them_too(keyed):
    assert "content-security-policy" in keyed.get("/info").headers


def test_names_in_host_headers():
    names = {"a": "a", "A.:80": "a", "[fe80::1]:80": "fe80::1", "fe80::1": "fe80::1", "": "", " a:1 ": "a"}
    assert {host: host_name(host) for host in names} == names
