"""Write down what an audit found: the one place where findings become a record."""

from __future__ import annotations

import platform
from datetime import timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from unaudit.calibration import Calibrated
from unaudit.case import Candidate, Case
from unaudit.config import hide_folders, without_folders
from unaudit.evidence import Scores, SplitName
from unaudit.fidelity import fidelity
from unaudit.judging import Judged, JudgedFamily
from unaudit.recording.digest import digest_of
from unaudit.recording.estimate import retrained_estimate
from unaudit.recording.excerpts import with_texts
from unaudit.recording.fidelity import fidelity_part
from unaudit.recording.figures import histograms, rocs
from unaudit.recording.groups import group_evidence
from unaudit.recording.inside import inside
from unaudit.recording.intervals import interval_of
from unaudit.recording.language import language
from unaudit.recording.matrix import matrix
from unaudit.recording.plan import describe_plan, public_command, repeat_command
from unaudit.recording.run import Run
from unaudit.recording.sanity import sanity
from unaudit.recording.shadows import shadow_models
from unaudit.recording.utility import accuracies, per_class
from unaudit.recording.worst import worst
from unaudit.report import record as schema

PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "torch", "safetensors", "pyarrow", "pillow"),
    *("transformers", "tokenizers"),
)


def write_record(run: Run) -> schema.Record:
    """The record of a run, with its digest as report id."""
    alpha = run.plan.policy.alpha
    exposed, warnings = _worst(run)
    parts: dict[str, Any] = {
        "subject": schema.Subject(
            model=model_ref(run.case.subject), claimed_method=run.plan.model.claimed_method
        ),
        "request": _request(run),
        "plan": describe_plan(run),
        "controls": _controls(run),
        "findings": tuple(_finding(judged, alpha) for judged in run.verdict.probes),
        "families": tuple(_family(family, alpha) for family in run.verdict.families),
        "skipped": tuple(
            schema.Skip(
                probe=missed.card.name,
                title=missed.card.title,
                kind=missed.kind,
                reason=hide_folders(missed.reason),
            )
            for missed in run.missed
        ),
        "calibration": schema.Calibration(
            probes=tuple(_probe_control(calibrated) for calibrated in run.calibrated),
            histograms=histograms(run.calibrated),
            rocs=rocs(run.calibrated, alpha, run.rng),
        ),
        "inside": inside(
            run.case,
            run.inside_of,
            [calibrated.measurement for calibrated in run.calibrated],
            run.rng,
        ),
        "matrix": matrix(run.case, run.calibrated, alpha, run.plan.policy.margin),
        "sanity": sanity(run.plan, run.case, run.calibrated, alpha),
        "fidelity": fidelity_part(fidelity(run.case, run.view_of)),
        "retrained_estimate": retrained_estimate(run.case, run.view_of, run.foretold),
        "shadows": shadow_models(run.case, run.calibrated),
        "worst": exposed,
        "groups": group_evidence(run.case, run.calibrated, alpha, run.name_of),
        "language": language(run.case, run.view_of),
        "verdict": _verdict(run),
    }
    return schema.Record(
        report_id=digest_of(parts)[:16], environment=_environment(run, warnings), **parts
    )


def model_ref(candidate: Candidate) -> schema.ModelRef:
    """A model file as the record names it."""
    came = candidate.model.provenance
    return schema.ModelRef(
        role=candidate.role,
        name=came.name,
        sha256=came.sha256,
        size_bytes=came.size_bytes,
        format=came.format,
        tier=came.tier,
        arch=None if came.arch is None else without_folders(came.arch),
        parameters=came.parameters,
        ignored=came.ignored,
        notes=came.notes,
    )


def _worst(run: Run) -> tuple[tuple[schema.Worst, ...], tuple[str, ...]]:
    """Who stands out most; with their texts, and a warning, only if the plan asks for texts."""
    lists = worst(run.case, run.calibrated, run.name_of)
    if not run.plan.run.show_examples:
        return lists, ()
    lists, warning = with_texts(lists, run.case.splits["forget"], run.name_of)
    return lists, (warning,)


def _request(run: Run) -> schema.Request:
    case = run.case
    unlabeled = run.n_classes < 2
    sizes = {name: len(split) for name, split in case.splits.items()}
    copies = case.copies
    shapes = case.splits["forget"].dataset.input_shape
    return schema.Request(
        forget=sizes["forget"],
        retain=sizes["retain"],
        unseen=sizes.get("unseen", 0),
        validation=sizes.get("validation", 0),
        unit="text" if case.task == "language-modeling" else "example",
        ids_hmac=case.ids_hmac,
        id_type=case.id_type,
        data_sha256=case.sources_digest,
        input_shape=shapes or None,
        n_classes=run.n_classes,
        scenario=case.scenario,
        scenario_source=case.scenario_source,
        classes=tuple(
            schema.ClassCount(
                label=label,
                forget=_count(case, "forget", label),
                retain=_count(case, "retain", label),
                unseen=_count(case, "unseen", label),
            )
            for label in (() if unlabeled else case.forget_classes)
        ),
        duplicates=None
        if copies is None
        else schema.Duplicates(
            forget_retain=copies.forget_retain,
            forget_unseen=copies.forget_unseen,
            retain_unseen=copies.retain_unseen,
        ),
    )


def _count(case: Case, split: SplitName, label: int) -> int:
    return int((case.splits[split].labels == label).sum()) if split in case.splits else 0


def _controls(run: Run) -> schema.Controls:
    case = run.case
    m = len(case.retrained)
    return schema.Controls(
        original=None if case.original is None else model_ref(case.original),
        retrained=tuple(model_ref(candidate) for candidate in case.retrained),
        smallest_rank_p=1.0 / (m + 1) if m else None,
        accuracy=accuracies(case, run.view_of),
        per_class=per_class(case, run.view_of, run.n_classes),
        warnings=case.warnings,
    )


def _finding(judged: Judged, alpha: float) -> schema.Finding:
    calibrated = judged.calibrated
    answer = calibrated.measurement.subject.answers[0]
    index = calibrated.index
    return schema.Finding(
        probe=calibrated.measurement.card.name,
        title=calibrated.measurement.card.title,
        family=calibrated.family,
        statistic=answer.statistic if isinstance(answer, Scores) else "scalar",
        measure=calibrated.measure,
        residual_index=interval_of(index, alpha),
        outcome=judged.outcome,
        counted=judged.counted,
        p_residual=None if index is None else index.p_residual,
        p_over_unlearned=None if index is None else index.p_over_unlearned,
        p_adjusted=judged.p_adjusted,
        fails=judged.fails,
        detail=dict(answer.detail),
    )


def _family(family: JudgedFamily, alpha: float) -> schema.FamilyFinding:
    return schema.FamilyFinding(
        family=family.family,
        required=family.required,
        informative=family.informative,
        pooled=interval_of(family.index, alpha),
        outcome=family.outcome,
        p_adjusted=family.p_adjusted,
        fails=family.fails,
    )


def _probe_control(calibrated: Calibrated) -> schema.ProbeControl:
    scale = calibrated.scale
    return schema.ProbeControl(
        probe=calibrated.measurement.card.name,
        mode=calibrated.mode,
        original=None if scale is None else scale.original,
        retrained=() if scale is None else tuple(float(value) for value in scale.retrained),
        positive=calibrated.positive,
        negative=calibrated.negative,
        detectable=None if calibrated.index is None else calibrated.index.detectable,
        informative=calibrated.informative,
        reason=calibrated.reason,
    )


def _verdict(run: Run) -> schema.Verdict:
    verdict = run.verdict
    return schema.Verdict(
        outcome=verdict.outcome,
        assurance_level=verdict.assurance_level,
        headline=verdict.headline,
        upper_bound=verdict.upper_bound,
        reasons=verdict.reasons,
        caps=verdict.caps,
        missing=verdict.missing,
        next_step=verdict.next_step,
        exit_code=int(verdict.exit_code(run.plan.policy.fail_on)),
    )


def _environment(run: Run, warnings: tuple[str, ...]) -> schema.Environment:
    return schema.Environment(
        unaudit=version("unaudit"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=run.device,
        packages={name: found for name in PACKAGES if (found := _version(name))},
        command=public_command(run.command or repeat_command(run.plan), run.plan),
        started=run.started.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=dict(run.seconds),
        warnings=warnings,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
