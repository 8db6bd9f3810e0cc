"""Our reader of raw examples gives the values that tensorflow-datasets reads."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jclip.data.sources.folders import open_folder
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.raw_examples import RawExamples
from jclip.data.sources.records import Translation
from jclip.data.sources.writing import write_pairs, write_parallel
from tests.data.pictures import encoded, picture

SEVERAL = StoredPair(encoded(picture(3, 4)), ("red", "", "红"), ("en", "", "zh"), -(2**40), (0, 7, 7))
NONE = StoredPair(encoded(picture(2, 2)), ())


@pytest.mark.parametrize("kind", ["pairs", "parallel"])
def test_examples_are_those_of_tensorflow_datasets(tmp_path, kind):
    folder = tmp_path / "data"
    if kind == "pairs":
        write_pairs(folder, [SEVERAL, NONE])
    else:
        write_parallel(folder, [Translation("one", "eins", "de"), Translation("", "", "")])
    builder = open_folder(folder)
    decoders = {"image": tfds.decode.SkipDecoding()} if kind == "pairs" else None
    theirs, ours = builder.as_data_source("train", decoders=decoders), RawExamples(builder, "train")
    assert len(ours) == len(theirs) == 2
    for number in range(2):
        assert ours[number].keys() == theirs[number].keys()
        for name, value in theirs[number].items():
            mine = ours[number][name]
            assert list(mine) == value.tolist() if isinstance(value, np.ndarray) else mine == value
