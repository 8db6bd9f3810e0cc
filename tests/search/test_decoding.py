"""Facts that EXIF gives: orientation, camera and time."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from jclip.errors import JclipError
from jclip.search.filters import Filter, parse_time
from tests.search.embedders import encoded, expected_vector
from tests.search.test_embedding import embedded, fill


@pytest.mark.parametrize("orientation", ["apply", "ignore"])
def test_the_orientation_is_applied_and_remembered(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0110] = "Camera\0"
    exif.get_ifd(0x8769)[0x9003] = "2021:02:03 04:05:06"
    exif.get_ifd(0x8769)[0x9011] = "+00:00"
    data = encoded(3, "JPEG", (20, 10), exif=exif)
    photos = fill(tmp_path / "photos", {"a.jpg": data})
    _, index = embedded(photos, tmp_path / "index", orientation=orientation)
    (entry,) = index.all_entries()
    assert index.facts.orientation == orientation
    assert (entry.width, entry.height) == ((10, 20) if orientation == "apply" else (20, 10))
    assert (entry.date, entry.meta) == (1612325106, {"format": "JPEG", "camera": "Camera"})
    np.testing.assert_array_equal(index.vector(0), expected_vector(data, orientation))
    assert list(expected_vector(data, "apply")) != list(expected_vector(data, "ignore"))
    other = {"apply": "ignore", "ignore": "apply"}[orientation]
    with pytest.raises(JclipError, match=f"made with orientation '{orientation}', not '{other}'"):
        embedded([], tmp_path / "index", update=True, orientation=other)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({0x9003: "2024:05:01 20:00:00"}, 1714564800),  # 12:00 UTC
        ({0x9003: "2024:05:01 20:00:00", 0x9011: "-03:30"}, 1714606200),  # 23:30 UTC
        ({0x9003: "2024:05:01 20:00:00", 0x9011: "   :  "}, 1714564800),
        ({0x9003: "0000:00:00 00:00:00", 0x0132: "2024:05:01 20:00:00", 0x9010: "+00:00"}, 1714593600),
        ({0x9003: "1970:01:01 08:00:00", 0x0132: "2024:05:01 20:00:00"}, 0),
        ({0x9003: "2016:12:31 23:59:60", 0x9011: "+00:00"}, 1483228799),
        ({0x9003: "0001:01:01 00:00:00"}, 10**9),  # of the file
    ],
)
def test_a_camera_s_time_is_local_unless_it_names_its_zone(tmp_path, monkeypatch, tags, expected):
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        exif = Image.Exif()
        for tag, value in tags.items():
            (exif if tag == 0x0132 else exif.get_ifd(0x8769))[tag] = value
        photos = fill(tmp_path / "photos", {"a.jpg": encoded(3, "JPEG", exif=exif)})
        os.utime(photos / "a.jpg", (10**9, 10**9))
        _, index = embedded(photos, tmp_path / "index")
        (entry,) = index.all_entries()
        assert entry.date == expected
        day = Filter(since=parse_time("2024-05-01"), before=parse_time("2024-05-01", end=True))
        assert len(index.select(day)) == (expected == 1714564800)
    finally:
        monkeypatch.undo()
        time.tzset()
