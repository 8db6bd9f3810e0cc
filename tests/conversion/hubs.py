"""A small local server that answers like the Hugging Face hub and can fail."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Repository makers/model; its revisions are {revision: {path: content}}."""

    def __init__(self, revisions):
        self.revisions = revisions
        self.commits = {name: hashlib.sha1(name.encode()).hexdigest() for name in revisions}
        self.fails = set()  # paths that answer with an error
        self.served = []

    def answer(self, path):
        """Returns status, headers and content."""
        api, file = "/api/models/makers/model", "/makers/model/resolve/"
        if path.startswith(file):
            revision, _, name = path.removeprefix(file).partition("/")
            files = self._at(revision)
            if name in self.fails:
                return 410, {}, b"not today"  # a status that the library does not retry
            if files is None or name not in files:
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            etag = hashlib.sha1(files[name]).hexdigest()
            self.served.append(name)
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": revision}, files[name]
        if not path.startswith(api):
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        kind, _, revision = unquote(path.removeprefix(api)).lstrip("/").partition("/")
        files = self._at(revision or "main")
        if files is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if kind == "tree":
            found = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        else:
            commit = self.commits.get(revision or "main", revision)
            found = {"id": "makers/model", "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()

    def _at(self, revision):
        named = {**{commit: name for name, commit in self.commits.items()}, **{name: name for name in self.commits}}
        return self.revisions.get(named.get(revision))

    @contextmanager
    def serving(self, cache):
        """Yields the environment of a process that uses this hub and the cache."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, headers, content = hub.answer(urlsplit(self.path).path)
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub_environment(f"http://127.0.0.1:{server.server_port}", cache)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def hub_environment(endpoint, cache):
    own = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return own | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def without_hub(cache):
    """Returns the environment of a process without a hub."""
    return hub_environment("http://127.0.0.1:9", cache)


def contents(place):
    return {file.name: file.read_bytes() for file in place.iterdir()}
