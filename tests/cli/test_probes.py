from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tests.cli.conftest import Run
from unaudit.evidence import PROBES, Evidence, ProbeCard, Scalar
from unaudit.plugins import load_plugins
from unaudit.views import BlackBox

load_plugins()


@dataclass(frozen=True)
class Hostile:
    """What a third party may hand in."""

    card: ClassVar[ProbeCard] = ProbeCard(
        name="theirs/hostile",
        title="A \x1b[31mtitle",
        family="membership",
        measures="line one\nline two \x1b]0;title\x07",
        source="[bold]markup[/bold]",
        cost="nothing",
        blind_spots=(),
        unsigned=True,
    )
    l2: float = 1e-4
    folds: tuple[int, ...] = (2, 5)

    def __call__(self, view: BlackBox, rng: np.random.Generator) -> Evidence:
        return Scalar(0.0)


@pytest.fixture
def third_parties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROBES._items, "theirs/hostile", Hostile)
    monkeypatch.setitem(PROBES.broken, "theirs/broken", "ImportError: no \x1bmodule")


def test_all_are_listed(run: Run) -> None:
    result = run("probes")
    assert result.code == 0
    lines = result.out.splitlines()
    for name, kind in PROBES.items():
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert kind.card.title in line
        assert ("*" in line) is kind.card.comparative
        assert (" + " in line) is (kind.card.shadows is not None)
        assert len(line) <= 80
    assert f"{len(PROBES)} probes" in result.out


@pytest.mark.parametrize(
    ("name", "mark", "models"),
    [
        ("entropy", "black-box", "classifiers"),
        ("min-k-plus-plus", "black-box  lm", "language models"),
        ("activation-distance-l2", "black-box  any", "classifiers and language models"),
        ("loss", "black-box  any", "classifiers and language models"),
    ],
)
def test_which_models_a_probe_reads(run: Run, name: str, mark: str, models: str) -> None:
    (line,) = [line for line in run("probes").out.splitlines() if line.startswith(f"  {name} ")]
    assert line.endswith(mark)
    (line,) = [line for line in run("probes", name).out.splitlines() if "models  " in line]
    assert line.split("models", 1)[1].strip() == models


@pytest.mark.parametrize("name", list(PROBES))
def test_each_is_explained_in_80_columns(run: Run, name: str) -> None:
    card = PROBES.get(name).card
    result = run("probes", name)
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    words = " ".join(result.out.split())
    for text in (card.title, card.measures, card.source, card.cost, card.family, card.access):
        assert " ".join(text.split()) in words
    for spot in card.blind_spots:
        assert " ".join(spot.split()) in words
    assert "higher = more remembered" in words or card.unsigned
    assert f"[probes.{name}]" in words


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("lira", "forget, unseen, shadow models (--shadows N)"),
        ("u-lira", "(--shadows N) that unlearned as well (--unlearner METHOD)"),
        ("jsd", "forget, retrained models"),
    ],
)
def test_what_a_probe_needs_is_named(run: Run, name: str, needs: str) -> None:
    assert needs in " ".join(run("probes", name).out.split())


def test_an_unknown_name_suggests_the_nearest(run: Run) -> None:
    result = run("probes", "confidense")
    assert result.code == 2
    assert result.complaint() == "unknown probe 'confidense' (did you mean 'confidence'?)"


def test_third_parties_are_explained_without_their_control_characters(
    run: Run, third_parties: None
) -> None:
    out = run("probes", "theirs/hostile").out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]markup[/bold]" in out
    assert "unsigned: a high value says" in out
    assert "l2 = 0.0001" in out
    assert "folds = (2, 5)" in out
    assert '[probes."theirs/hostile"]' in out


@pytest.mark.parametrize("arguments", [["probes"], ["probes", "theirs/broken"]], ids=str)
def test_broken_plugins_are_shown(run: Run, third_parties: None, arguments: list[str]) -> None:
    result = run(*arguments)
    assert "theirs/broken: the plug-in failed to import (ImportError: no module)" in " ".join(
        result.out.split()
    )
    assert "\x1b" not in result.out
