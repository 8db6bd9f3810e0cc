import http.server
import socket
import threading
import time

import pytest

from jclip.serve.fetching import Fetcher, checked, is_public
from jclip.serve.refusals import Refusal
from tests.serve.services import client_of, drawn, encoded, error_of

PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "172.32.0.1")
PRIVATE = (
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0"),
    *("fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "", "localhost", "1.1"),
    "2001:0:0:0:0:0:80ff:fffe",  # Teredo of 127.0.0.1
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_an_own_network(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://a.example/x", "url_invalid"),
        ("file:///etc/passwd", "url_invalid"),
        ("http:///x", "url_invalid"),
        ("http://user@a.example/", "url_invalid"),
        ("http://:pass@a.example/", "url_invalid"),
        ("http://a.example:22/", "url_not_public"),
        ("https://a.example:80/", "url_not_public"),
        ("http://a.example:99999/", "url_invalid"),
        ("http://[::1/", "url_invalid"),
        ("http://a.example/\r\nHost: b", "url_invalid"),
        ("http://a.example/ x", "url_invalid"),
        ("http://例子.example/", "url_invalid"),
        ("http://a.example/" + "x" * 2048, "url_invalid"),
    ],
)
def test_urls_that_are_refused(url, code):
    with pytest.raises(Refusal) as refusal:
        checked(url)
    assert (refusal.value.status, refusal.value.code) == (422, code)


@pytest.fixture
def names(monkeypatch):
    """Simulates a name server: {name: addresses}, which may be changed. Connections are noted, and refused."""
    known, tried = {}, []

    def look_up(host, port, **more):
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in known[host]]

    def connect(address, timeout):
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    return known, tried


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
def test_a_name_of_an_own_address_is_not_connected_to(names, address):
    known, tried = names
    known["a.example"] = ["93.184.216.34", address]  # one public address does not help
    for url in ("http://a.example/", "https://a.example/"):
        with pytest.raises(Refusal, match="public addresses only") as refusal:
            Fetcher(10)(url)
        assert refusal.value.code == "url_not_public"
    assert tried == []


def test_the_connection_goes_to_the_checked_addresses(names):
    known, tried = names
    known["a.example"] = ["93.184.216.34", "8.8.8.8"]
    with pytest.raises(Refusal, match="cannot be read .ConnectionRefusedError."):
        Fetcher(10)("http://a.example/x")
    assert tried == [("93.184.216.34", 80), ("8.8.8.8", 80)]
    with pytest.raises(Refusal, match="cannot be read .gaierror."):
        Fetcher(10)("http://b.example/x")


IMAGE = encoded(drawn(1))


class _Site(http.server.BaseHTTPRequestHandler):
    """Website with an image, redirects, an endless file and a slow one."""

    def do_GET(self):
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif self.path in ("/image", "/short"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(IMAGE) + 100 * (self.path == "/short")))
            self.end_headers()
            self.wfile.write(IMAGE)
        elif self.path in ("/endless", "/slow"):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * (1 << 14 if self.path == "/endless" else 1))
                    time.sleep(0.01)
            except OSError:
                pass
        else:
            self.send_error(404)

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def public(monkeypatch, site):
    """Makes the site a public one: http://a.example/ is a public address, whose connections go to it."""
    own = socket.create_connection, socket.getaddrinfo

    def connect(address, timeout):
        assert address == ("93.184.216.34", 80)
        return own[0](("127.0.0.1", site), timeout)

    monkeypatch.setattr(socket, "create_connection", connect)

    def look_up(host, port, *others, **more):
        known = {"a.example": "93.184.216.34", "inner.example": "10.0.0.1"}
        return own[1](known.get(host, host), port, *others, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_an_image_is_fetched(public):
    assert Fetcher(10**6)("http://a.example/image") == IMAGE
    assert Fetcher(10**6)("http://a.example/to?/to?http://a.example/image") == IMAGE


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nothing", "url_failed"),
        ("/endless", "body_limit"),
        ("/slow", "url_timeout"),
        ("/short", "url_failed"),
        ("/to?http://inner.example/", "url_not_public"),
        ("/to?http://127.0.0.1/", "url_not_public"),
        ("/to?http://[::ffff:169.254.169.254]/", "url_not_public"),
        ("/to?http://a.example:8080/", "url_not_public"),
        ("/to?file:///etc/passwd", "url_invalid"),
        ("/to?", "url_failed"),
        ("/to?" * 5 + "/image", "url_failed"),
    ],
)
def test_what_cannot_be_fetched(public, path, code):
    started = time.monotonic()
    with pytest.raises(Refusal) as refusal:
        Fetcher(50_000, seconds=0.5)(f"http://a.example{path}")
    assert refusal.value.code == code and time.monotonic() - started < 5


def test_the_service_fetches_only_if_allowed(place, public):
    body = {"input": ["http://a.example/image", "http://inner.example/"], "modality": "image"}
    with client_of(place) as client:
        assert error_of(client.post("/v1/embeddings", json=body), 422)["code"] == "urls_off"
        direct = client.post("/v1/embeddings", json={"input": [_uri()]}).json()["data"][0]["embedding"]
    with client_of(place, urls=True) as client:
        found = client.post("/v1/embeddings", json=body).json()["data"]
        assert found[0]["embedding"] == pytest.approx(direct, abs=1e-6)
        assert found[1]["error"]["code"] == "url_not_public"


def _uri():
    from tests.serve.services import uri

    return uri(IMAGE)
