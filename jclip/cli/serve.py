"""`jclip serve BUNDLE`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.options import read
from jclip.console import Console
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.io.json_files import read_bytes
from jclip.plain import say
from jclip.serve.limits import Limits

KEY = "JCLIP_API_KEY"
_LONGEST_KEY = 4096  # bytes


@dataclass(frozen=True)
class ServeOptions:
    """Starts an HTTP service that embeds and classifies, and with --index searches, with a page at its address.

    It ends after the requests in progress when it gets SIGTERM or Ctrl-C, and at once when it gets a second one.
    /openapi.json describes its endpoints.

    Attributes:
      bundle: a bundle, hf://ORG/NAME, or a checkpoint that jclip convert reads.
      index: folder of an index that jclip embed made with this model.
      embed: folders, images and other sources, as jclip embed takes them, to embed into the index while the service
        runs. The index is made if it does not exist. The page shows the progress.
      host: address to listen on. Any but a local one needs a key, see --key-file.
      port: port to listen on; 0 for any free one.
      key_file: file with the key that requests must send as "Authorization: Bearer KEY". The environment variable
        JCLIP_API_KEY gives it too.
      hosts: names that requests may use for a service on a local address, such as that of a proxy in front of it.
      orientation: apply rotates images in requests by their EXIF orientation, ignore does not; by default as the index
        was made, or apply.
      batch: maximum number of texts or images that are encoded at once.
      allow_urls: fetch images by http and https URLs in requests, from public addresses.
      limits: limits on requests.
    """

    bundle: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="BUNDLE")]]
    index: Path | None = None
    embed: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE")] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    key_file: Path | None = None
    hosts: tuple[str, ...] = ()
    orientation: Orientation | None = None
    batch: int = 32
    allow_urls: bool = False
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ServeOptions, arguments, "jclip serve")
    from jclip.serve.server import Server, is_local, listen, url_of

    if options.batch < 1:
        raise JclipError(f"--batch is {options.batch}, but must be 1 or more: give another")
    if options.embed and options.index is None:
        raise JclipError("--embed has no index to write: give one with --index")
    key = api_key(options.key_file)
    if key is None and not is_local(options.host):
        raise JclipError(f"--host {options.host} can be reached from elsewhere: give a key with --key-file or ${KEY}")
    with listen(options.host, options.port) as listening:
        from jclip.loading import load
        from jclip.serve.app import Settings, make_app
        from jclip.serve.gallery import Gallery

        with Console(stderr=True).working(f"loading {options.bundle}"):
            model = load(options.bundle, batch_size=options.batch)
            gallery = None
            if options.index is not None:
                gallery = Gallery(options.index, model)
                if not options.embed or os.path.lexists(options.index):
                    gallery.open()
        hosts = frozenset(options.hosts) if options.hosts or is_local(options.host) else None
        settings = Settings(options.limits, options.batch, options.orientation, key, hosts, options.allow_urls)
        say(f"{url_of(listening)} serves {model.name}; Ctrl-C ends it")
        Server(make_app(model, settings, gallery, options.embed)).run([listening])
    return 0


def api_key(file: Path | None) -> str | None:
    """Returns the key in a file, else in the environment; None for none.

    Raises JclipError if the file cannot be read, or the key is not one line of visible ASCII characters.
    """
    if file is not None:
        where, said = str(file), read_bytes(file, "as a key", largest=_LONGEST_KEY).decode("utf-8", "replace").strip()
    else:
        where, said = f"${KEY}", os.environ.get(KEY, "").strip()
        if not said:
            return None
    if not said or not all("!" <= letter <= "~" for letter in said):
        raise JclipError(f"{where} holds no key: write one line of letters, digits and signs, without spaces")
    return said
