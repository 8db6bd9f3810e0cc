"""Files of the search page, read once at the start."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jclip.serve.refusals import Refusal
from jclip.serve.responses import refused, unless_known

FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}


def page_routes(folder: Path = FOLDER) -> list[Route]:
    """Returns the routes of the page: "/" is index.html, and "/page/NAME" each file of the folder."""
    files = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.suffix in _TYPES and file.is_file()
    }

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            return refused(Refusal(404, "not_found", "the page has no such file"))
        return unless_known(request, files[name], _TYPES[Path(name).suffix])

    return [Route("/", page, methods=["GET"]), Route("/page/{name:path}", page, methods=["GET"])]
