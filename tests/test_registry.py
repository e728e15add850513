"""Names: found, refused with a suggestion, claimed once."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from unaudit import registry
from unaudit.errors import UsageError
from unaudit.registry import Registry, did_you_mean


def test_a_registered_item_is_found_in_order() -> None:
    things: Registry[int] = Registry("thing", "unaudit.things")
    things.register("b")(1)
    things.register("a")(2)
    assert list(things) == ["b", "a"]
    assert things.get("a") == 2


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    things: Registry[int] = Registry("thing", "unaudit.things")
    things.register("entropy")(1)
    with pytest.raises(UsageError, match=r"unknown thing 'entorpy' \(did you mean 'entropy'\?\)"):
        things.get("entorpy")


def test_two_items_cannot_share_a_name() -> None:
    things: Registry[str] = Registry("thing", "unaudit.things")
    things.register("a")("first")
    with pytest.raises(ValueError, match="two things claim the name 'a'"):
        things.register("a")("second")


def test_a_plugin_that_fails_to_import_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("pkg/probe", "no_such_module_anywhere:probe", "unaudit.things")
    good = EntryPoint("pkg/path", "os:sep", "unaudit.things")
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken, good])
    things: Registry[str] = Registry("thing", "unaudit.things")
    things.load_entry_points()
    assert list(things) == ["pkg/path"]
    assert "ModuleNotFoundError" in things.broken["pkg/probe"]


def test_suggestions_fall_back_to_what_exists() -> None:
    assert did_you_mean("zzz", ["alpha", "beta"]) == " (known: alpha, beta)"
    assert did_you_mean("zzz", []) == ""
