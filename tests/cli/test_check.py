from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.cli.conftest import FakeAudit, Run, with_outcome
from tests.report.samples import passing
from unaudit.cli.flags import plan_options
from unaudit.cli.options import PlanOption
from unaudit.config import known_keys
from unaudit.plan import AuditPlan, PolicySection, RequestSection
from unaudit.report.record import Record

BASE = ("check", "m.pt", "--forget", "ids.txt", "--train", "t.npz")
JSON = ("-o", "json")


def plan_of(fake: FakeAudit) -> AuditPlan:
    (plan,) = fake.plans
    return plan


def test_every_flag_reaches_the_plan(run: Run, here: Path, fake_audit: FakeAudit) -> None:
    result = run(
        *BASE,
        *("--original", "o.pt", "--retrained", "a.pt", "--retrained", "b.pt"),
        *("--arch", "torchvision:resnet18?num_classes=10", "--unseen", "u.npz"),
        *("--validation", "v.npz", "--id-type", "key", "--scenario", "class"),
        *("--access", "black-box", "--tau", "0.25", "--accept-black-box"),
        *("--trust-code", "--trust-reason", "ours", "--seed", "7", "--device", "cpu"),
        *("--batch-size", "32", "--store", "cache", "--out", "audit", "-o", "json:x.json"),
        *("--fail-on", "fail"),
    )
    assert result.code == 0
    assert plan_of(fake_audit) == AuditPlan.build(
        {
            "model": {
                "path": "m.pt",
                "arch": "torchvision:resnet18?num_classes=10",
                "trust_code": True,
                "trust_reason": "ours",
            },
            "data": {
                "train": "t.npz",
                "unseen": "u.npz",
                "validation": "v.npz",
                "id_type": "key",
            },
            "request": {"forget": "ids.txt", "scenario": "class"},
            "references": {"original": "o.pt", "retrained": ["a.pt", "b.pt"]},
            "policy": {
                "access": "black-box",
                "tau": 0.25,
                "accept_black_box": True,
                "fail_on": "fail",
            },
            "run": {
                "seed": 7,
                "device": "cpu",
                "batch_size": 32,
                "store": "cache",
                "out": "audit",
                "formats": ["json:x.json"],
            },
        }
    )
    assert Record.read(here / "x.json") == Record.read(here / "audit/record.json")


def test_flags_name_keys_and_values_of_the_plan() -> None:
    options = {option.key: option for option in plan_options()}
    assert set(options) <= set(known_keys(AuditPlan))
    for key, section in (
        ("access", PolicySection),
        ("preset", PolicySection),
        ("fail_on", PolicySection),
        ("scenario", RequestSection),
    ):
        prefix = "request" if section is RequestSection else "policy"
        choices: Any = options[f"{prefix}.{key}"].type
        assert list(choices.choices) == literals(section.model_fields[key].annotation)


def literals(annotation: Any) -> list[str]:
    arguments = get_args(annotation)
    return [
        value
        for item in arguments
        for value in ([item] if isinstance(item, str) else literals(item))
    ]


@pytest.mark.parametrize(
    ("outcome", "gate", "flags", "code"),
    [
        ("pass", 0, [], 0),
        ("fail", 1, [], 1),
        ("inconclusive", 3, [], 3),
        ("inconclusive", 0, ["--fail-on", "fail"], 0),
        ("fail", 1, ["--fail-on", "fail"], 1),
        ("fail", 1, ["--exit-zero"], 0),
        ("inconclusive", 3, ["--exit-zero"], 0),
    ],
)
def test_the_exit_code_is_the_verdict(
    run: Run,
    here: Path,
    fake_audit: FakeAudit,
    outcome: str,
    gate: int,
    flags: list[str],
    code: int,
) -> None:
    fake_audit.record = with_outcome(passing(), outcome, gate)
    assert run(*BASE, *JSON, *flags).code == code


def test_exit_zero_forgives_no_error(run: Run, here: Path, fake_audit: FakeAudit) -> None:
    fake_audit.error = ValueError("a bug")
    assert run(*BASE, *JSON, "--exit-zero").code == 70


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tau", "0.3", "--preset", "strict"], "--tau and --preset both set the margin"),
        (["--exit-zero", "--fail-on", "fail"], "--exit-zero ignores the verdict"),
        (["--trust-reason", "mine"], "trust_reason without trust_code; add --trust-code"),
        (["--retrained", "m.pt"], "is the subject and also listed as retrained"),
        (["--retrained", "./a.pt", "--retrained", "a.pt"], "is listed twice as retrained"),
        (["--original", "a.pt", "--retrained", "a.pt"], "is the original and also"),
        (["-o", "docx"], "unknown report format 'docx' (known: json, html, pdf)"),
        (["-o", "htm"], "did you mean 'html'?"),
        (["-o", "html:"], "names no file after the colon"),
        (["-o", "html:a", "-o", "json:a"], "two reports would be written to"),
        (["--train", ""], "data.train: string should have at least 1 character"),
        (["--config", "absent.toml"], "absent.toml: No such file or directory; check --config"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_contradictions_end_before_the_audit(
    run: Run, here: Path, fake_audit: FakeAudit, arguments: list[str], complaint: str
) -> None:
    result = run(*BASE, *arguments)
    assert result.code == 2
    assert complaint in result.complaint()
    assert fake_audit.plans == []


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ([], ["the model (MODEL)", "the forget ids (--forget IDS)", "(--train DATA)"]),
        (["m.pt"], ["the forget ids (--forget IDS)", "(--train DATA)"]),
        (["m.pt", "--forget", "ids.txt"], ["(--train DATA)"]),
        (["--forget", "ids.txt", "--train", "t.npz"], ["the model (MODEL)"]),
    ],
    ids=str,
)
def test_everything_that_is_missing_is_named_at_once(
    run: Run, here: Path, fake_audit: FakeAudit, arguments: list[str], missing: list[str]
) -> None:
    result = run("check", *arguments)
    assert result.code == 2
    listed = result.complaint().removeprefix("not given: ").partition(";")[0]
    assert all(item in listed for item in missing)
    assert listed.count("(") == len(missing)
    assert "unaudit init" in result.complaint()


def test_recorded_outputs_bring_their_own_examples(
    run: Run, here: Path, fake_audit: FakeAudit
) -> None:
    assert run("check", "outputs:logs.npz", *JSON).code == 0
    assert run("check", "outputs:logs.npz", "--access", "white-box").code == 2


class TestConfig:
    TEXT = '[data]\ntrain = "t.npz"\n[request]\nforget = "ids.txt"\n[run]\nseed = {seed}\n'

    def write(self, path: Path, seed: int, more: str = "") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.TEXT.format(seed=seed) + more, encoding="utf-8")
        return path

    def test_next_to_the_model_comes_before_the_working_directory(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        self.write(here / "models/unaudit.toml", 1)
        self.write(here / "unaudit.toml", 2)
        result = run("check", "models/m.pt", *JSON)
        assert result.code == 0
        assert plan_of(fake_audit).run.seed == 1
        assert plan_of(fake_audit).data.train == "models/t.npz"
        assert "using models/unaudit.toml (next to the model)" in result.err

    def test_the_working_directory_comes_last(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        self.write(here / "unaudit.toml", 2)
        (here / "models").mkdir()
        result = run("check", "models/m.pt", *JSON)
        assert plan_of(fake_audit).run.seed == 2
        assert "using unaudit.toml (in the working directory)" in result.err

    def test_a_named_file_comes_first(self, run: Run, here: Path, fake_audit: FakeAudit) -> None:
        self.write(here / "unaudit.toml", 2)
        self.write(here / "other.toml", 3)
        assert run("check", "m.pt", "--config", "other.toml", *JSON).code == 0
        assert plan_of(fake_audit).run.seed == 3

    def test_next_to_recorded_outputs(self, run: Run, here: Path, fake_audit: FakeAudit) -> None:
        self.write(here / "logs/unaudit.toml", 4)
        assert run("check", "outputs:logs/a.npz", *JSON).code == 0
        assert plan_of(fake_audit).run.seed == 4

    def test_in_a_model_that_is_a_folder(self, run: Run, here: Path, fake_audit: FakeAudit) -> None:
        self.write(here / "model/unaudit.toml", 5)
        assert run("check", "model", *JSON).code == 0
        assert plan_of(fake_audit).run.seed == 5

    def test_the_model_may_come_from_the_file(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        self.write(here / "unaudit.toml", 2, '[model]\npath = "models/m.pt"\n')
        assert run("check", *JSON).code == 0
        assert plan_of(fake_audit).model.path == "models/m.pt"

    def test_another_subject_than_the_file_names_is_said(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        self.write(here / "unaudit.toml", 2, '[model]\npath = "m.pt"\n')
        said = "auditing b.pt instead of its model.path"
        assert said in run("check", "--retrained", "a.pt", "b.pt", *JSON).err
        assert "instead" not in run("check", "./m.pt", *JSON).err

    def test_flags_stand_above_the_file(self, run: Run, here: Path, fake_audit: FakeAudit) -> None:
        self.write(here / "unaudit.toml", 2, '[policy]\npreset = "strict"\n')
        assert run("check", "m.pt", "--seed", "0", "--tau", "0.4", *JSON).code == 0
        assert plan_of(fake_audit).run.seed == 0
        assert plan_of(fake_audit).policy.margin == 0.4

    def test_a_preset_on_the_line_stands_above_tau_in_the_file(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        self.write(here / "unaudit.toml", 2, "[policy]\ntau = 0.9\n")
        assert run("check", "m.pt", "--preset", "strict", *JSON).code == 0
        assert plan_of(fake_audit).policy.margin == 0.2

    def test_a_found_file_may_not_allow_code_to_run(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        path = self.write(here / "models/unaudit.toml", 1, "[model]\ntrust_code = true\n")
        result = run("check", "models/m.pt", *JSON)
        assert result.code == 2
        assert "--trust-code" in result.complaint()
        assert fake_audit.plans == []
        assert run("check", "models/m.pt", "--trust-code", *JSON).code == 0
        assert run("check", "models/m.pt", "--config", path, *JSON).code == 0
        assert [plan.model.trust_code for plan in fake_audit.plans] == [True, True]

    def test_a_mistake_in_the_file_names_the_file(
        self, run: Run, here: Path, fake_audit: FakeAudit
    ) -> None:
        self.write(here / "unaudit.toml", 2, "[polcy]\ntau = 0.9\n")
        complaint = run("check", "m.pt").complaint()
        assert complaint == "unaudit.toml: unknown key 'polcy' (did you mean 'policy'?)"


def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time, types\n"
        # a shell starts what runs in its background with interrupts ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def audit(*_, **__):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(30)\n"
        "sys.modules['unaudit.pipeline'] = types.SimpleNamespace(audit=audit)\n"
        "from unaudit.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *BASE, *JSON, "--out", str(tmp_path / "audit")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.split("\n", 1)[1] == "unaudit: interrupted; the cache keeps what was finished\n"
    assert list((tmp_path / "audit").iterdir()) == []


def test_the_record_is_json_with_the_verdict(run: Run, here: Path, fake_audit: FakeAudit) -> None:
    run(*BASE, *JSON, "--out", "audit")
    found = json.loads((here / "audit/record.json").read_text(encoding="utf-8"))
    assert found["verdict"]["outcome"] == "pass"


def test_option_keys_are_unique() -> None:
    options: list[PlanOption] = plan_options()
    assert len({option.key for option in options}) == len(options)
