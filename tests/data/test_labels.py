"""Labels: class indexes or class names, never a guess."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unaudit.data.labels import as_labels, named_labels
from unaudit.errors import InputError

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "expected", "classes"),
    [
        ([0, 2, 1], [0, 2, 1], None),
        (np.array([0, 2, 1], dtype=np.uint8), [0, 2, 1], None),
        (np.array([0.0, 2.0]), [0, 2], None),
        (np.array([False, True]), [0, 1], None),
        (["0", "10", "2"], [0, 10, 2], None),
        ([" 3", "4.0"], [3, 4], None),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        (np.array(["b", "a"]), [1, 0], ("a", "b")),
        (["1", "x"], [0, 1], ("1", "x")),
        (["Ä", "a", "Z"], [2, 1, 0], ("Z", "a", "Ä")),
    ],
)
def test_labels(values: Any, expected: list[int], classes: tuple[str, ...] | None) -> None:
    labels, names = as_labels(values, "f", None)
    assert labels.dtype == np.int64
    assert labels.tolist() == expected
    assert names == classes


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.array([0, -1]), "'b' is -1; labels count from 0"),
        (np.array([0.0, NAN]), "'b' is nan, not a class index"),
        (np.array([0.0, np.inf]), "'b' is inf"),
        (np.array([0.0, 1.5]), "'b' is 1.5, not a class index"),
        (np.array([0, 2**63 + 5], dtype=np.uint64), "'b' is 9.22"),
        ([0, None], "'b' is missing"),
        (["0", ""], "'b' is missing"),
        (["cat", "nan"], "'b' is missing"),
        (["0", "-3"], "'b' is -3"),
        (["0", "1.5"], "'b' is 1.5"),
        ([0, [1]], "'b' is '[1]', neither"),
        ([0, 10**30], "'b' is inf"),
        ([0, "1" + "0" * 400], "'b' is inf"),
    ],
)
def test_bad_labels_name_the_example(values: Any, complaint: str) -> None:
    with pytest.raises(InputError) as error:
        as_labels(values, "train.csv", np.array(["a", "b"]))
    assert complaint in str(error.value)
    assert str(error.value).startswith("train.csv: the label of example 'b'")
    assert str(error.value).endswith("check data.label_column")


def test_examples_without_ids_are_named_by_position() -> None:
    with pytest.raises(InputError, match="example 1 is -1"):
        as_labels(np.array([0, -1]), "f", None)


def test_further_data_is_numbered_like_the_training_data() -> None:
    labels, names = named_labels(["dog"], "f", None, ("cat", "dog"))
    assert labels.tolist() == [1]
    assert names == ("cat", "dog")
    with pytest.raises(InputError, match=r"'cow', no class of the training data \('cat', 'dog'\)"):
        named_labels(["cow"], "f", None, ("cat", "dog"))
    with pytest.raises(InputError, match="the training data has numbers"):
        named_labels(["cow"], "f", None, ())
    numbers, none = as_labels([1], "f", None, ("cat", "dog"))
    assert numbers.tolist() == [1]
    assert none is None
