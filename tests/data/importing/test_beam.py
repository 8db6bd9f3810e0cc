"""Imports on Apache Beam give the same bytes; without Beam, the error says what to install."""

import importlib.util
import sys

import pytest

from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.importing.workers import on_beam
from jclip.errors import JclipError
from tests.data.importing.sources import cn_clip, contents, picture, tars


def test_without_beam_the_option_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(JclipError, match=r'apache_beam is not installed: pip install "jclip\[beam\]"'):
        on_beam()


# Beam needs other versions of pillow and protobuf than other packages of the tests, so it is not a requirement. These
# tests run where Beam is installed.
if importlib.util.find_spec("apache_beam"):
    pytestmark = pytest.mark.filterwarnings("default")  # Beam's own

    def imported(source, target, **plan):
        plan = Plan("cn-clip", shard_bytes=300, **plan)
        return import_data(open_source("cn-clip", source, Reading())[1], target, plan)

    def test_the_direct_runner_gives_the_same(tmp_path):
        source = cn_clip(tmp_path / "source", pictures=lambda n: picture(n % 10))
        here = imported(source, tmp_path / "here", limit=Limit(share=0.5))
        beam = imported(source, tmp_path / "beam", limit=Limit(share=0.5), run=on_beam())
        assert here == beam
        assert contents(tmp_path / "here") == contents(tmp_path / "beam")

    def test_a_workers_error_is_the_usual_line(tmp_path):
        (file,) = tars(tmp_path / "source", count=1).iterdir()
        file.write_bytes(file.read_bytes()[:5000])
        reader = open_source("webdataset", file, Reading())[1]
        with pytest.raises(JclipError, match=r"^[^\n]*000.tar is damaged or incomplete [^\n]*fetch it again$"):
            import_data(reader, tmp_path / "beam", Plan("webdataset", run=on_beam()))
        assert [path.name for path in tmp_path.iterdir()] == ["source"]
