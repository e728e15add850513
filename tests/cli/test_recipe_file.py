"""``--recipe FILE``: what it may hold, and complaints that name the file and the flag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.cli.conftest import Run
from tests.hugging_face import causal_folder, words, write_texts
from tests.shadows.planned import plan_in

LINE = ("plan", "subject.safetensors", "--arch", "unaudit:mlp?widths=16-8-3", "--train",
        "train.npz", "--forget", "forget.txt", "--store", "store", "--recipe")  # fmt: skip


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "recipe.toml: No such file or directory; check --recipe"),
        ("epochs = \n", "recipe.toml: not valid TOML"),
        ("recipe = 3\n", "recipe.toml: recipe must be a section, [recipe], with keys of its own"),
        ("epohcs = 3\n", "--recipe recipe.toml: unknown key 'recipe.epohcs' (did you mean 'epo"),
        ("[recipe]\nlr = -1\n", "--recipe recipe.toml: recipe.lr: input should be greater"),
        ("[recpie]\nlr = 1\n", "--recipe recipe.toml: unknown key 'recipe.recpie'"),
    ],
)
def test_complaints_name_the_file(
    content: str | None, complaint: str, run: Run, here: Path
) -> None:
    plan_in(here)
    if content is not None:
        (here / "recipe.toml").write_text(content)
    result = run(*LINE, "recipe.toml")
    assert result.code == 2
    assert result.complaint().startswith(complaint)


def test_what_else_a_file_holds_is_not_taken_up_and_said(run: Run, here: Path) -> None:
    plan_in(here)
    recipe = here / "recipe.toml"
    recipe.write_text("schema_version = 1\n[recipe]\nepochs = 2\n[shadows]\ncount = 8\n")
    result = run(*LINE, "recipe.toml")
    assert result.code == 0
    assert "using the recipe of recipe.toml, and nothing else of it (shadows)" in result.err
    assert "shadow models by the recipe" not in result.out
    recipe.write_text("epochs = 2\n")
    assert "nothing else" not in run(*LINE, "recipe.toml").err


def test_texts_are_not_augmented_and_the_result_can_be_audited(run: Run, here: Path) -> None:
    rng = np.random.default_rng(0)
    write_texts(here / "train.jsonl", [" ".join(rng.choice(words(), 6)) for _ in range(40)], "t")
    (here / "forget.txt").write_text("".join(f"t-{row}\n" for row in range(10)))
    causal_folder(here / "original", n_layer=1)
    (here / "recipe.toml").write_text('augment = "flip"\n')
    data = ("--train", "train.jsonl", "--forget", "forget.txt", "--store", "store")
    unlearn = ("unlearn", "finetune", "original", *data, "-o", "out.safetensors")
    for line in (("plan", "original", *data), unlearn):
        result = run(*line, "--recipe", "recipe.toml")
        assert result.code == 2
        assert (
            "recipe.augment = 'flip' is for images, and texts are not augmented; take it out"
        ) in result.err
    result = run(*unlearn, "--set", "epochs=1")
    assert result.code == 0
    assert "wrote out.safetensors; audit it with --arch hf:original" in result.err
    assert load_file(here / "out.safetensors")
    assert run("plan", "out.safetensors", "--arch", "hf:original", *data).code == 0
