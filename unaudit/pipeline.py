"""The audit, top to bottom.

files → case → views → measurements → calibration → verdict → record
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np

from unaudit.access import (
    access_level,
    broken_plugins,
    choose_probes,
    splits_to_run,
    unless_opaque,
    within_access,
)
from unaudit.by_class import kept_classes
from unaudit.calibration import calibrate
from unaudit.case import build_case
from unaudit.doubts import doubts_about
from unaudit.engine.answers import AnswerCache
from unaudit.engine.store import Store
from unaudit.engine.threads import threads_for
from unaudit.forward import ForwardPass
from unaudit.loading.libraries import libraries
from unaudit.measuring import measure_all
from unaudit.plan import AuditPlan
from unaudit.progress import SILENT, Progress
from unaudit.recording import Run, namer, write_record
from unaudit.references import complete
from unaudit.report.record import Record
from unaudit.standing import upheld
from unaudit.twin import foretell
from unaudit.verdict import Verdict, decide


def audit(plan: AuditPlan, *, progress: Progress = SILENT, command: str | None = None) -> Record:
    """Audit one model as ``plan`` says; writes nothing but the cache.

    Args:
        plan: what to audit, against what, and by which policy.
        progress: who is told how far it is.
        command: the command line to print for repeating the audit; default: made from the plan.

    Raises:
        UsageError: the plan contradicts itself or lacks something.
        InputError: a file, key or id cannot be used.
        UnsafeModelError: a model file was refused.
    """
    clock = _Clock(progress)
    store = Store(None if plan.run.store is None else Path(plan.run.store))
    probes, left_out = choose_probes(plan)
    case = complete(build_case(plan, store, clock), plan, store, clock)
    forward = ForwardPass(
        case,
        store,
        batch_size=plan.run.batch_size,
        device=plan.run.device,
        progress=clock,
        layers=plan.model.layers,
        head=plan.model.head,
    )
    access = access_level(plan, case)
    if plan.policy.access is None and access == "white-box":
        access, case = unless_opaque(case, forward)
    forward.record_features = access == "white-box"
    probes, out_of_reach = within_access(probes, access)
    everyone = (*case.candidates, *case.calibrators)
    view_of = {candidate.label: forward.view(candidate) for candidate in everyone}
    inside_of = {
        candidate.label: forward.white_view(candidate)
        for candidate in everyone
        if access == "white-box" and not candidate.recorded
    }
    for view in view_of.values():
        for split in splits_to_run(case):
            view.predictions(split)
    answers = AnswerCache(
        store,
        data=case.data_digest,
        scenario=case.scenario,
        seed=plan.run.seed,
        batch_size=plan.run.batch_size,
        device=forward.device.type,
        torch=libraries(getattr(case.subject.model, "arch", None)),
        layers=plan.model.layers,
        head=plan.model.head,
    )
    with threads_for(forward.step_size):
        measurements, missed = measure_all(
            probes, case, view_of, plan.run.seed, clock, inside_of=inside_of, answers=answers
        )
    policy = plan.policy
    doubts = doubts_about(case, view_of, measurements)
    foretold = foretell(case, plan, store, clock)
    calibrated_by = partial(
        calibrate,
        case=case,
        alpha=policy.alpha,
        tau=policy.margin,
        replicates=plan.run.bootstrap,
    )
    decided_by = partial(
        decide,
        case=case,
        alpha=policy.alpha,
        tau=policy.margin,
        access=access,
        accept_black_box=policy.accept_black_box,
        missed=missed,
    )

    def without_references() -> Verdict:
        alone = [replace(m, original=None, retrained=(), calibrators={}) for m in measurements]
        return decided_by(calibrated_by(alone, rng=_generator(plan.run.seed, "bootstrap")))

    with clock.stage("calibrating"):
        calibrated = calibrated_by(measurements, rng=_generator(plan.run.seed, "bootstrap"))
        kept = kept_classes(
            calibrated,
            case,
            alpha=policy.alpha,
            tau=policy.margin,
            replicates=plan.run.bootstrap,
            rng=_generator(plan.run.seed, "classes"),
        )
        verdict = decided_by(
            calibrated,
            suspicions=(*doubts.lines, *kept),
            remedy=doubts.remedy,
            faithful=doubts.faithful,
        )
        verdict = upheld(verdict, doubts, policy.margin, without_references)
    return write_record(
        Run(
            plan=plan,
            command=command,
            access=access,
            case=case,
            view_of=view_of,
            inside_of=inside_of,
            n_classes=forward.n_classes,
            device=str(forward.device),
            probes=tuple(probes),
            missed=(*missed, *left_out, *out_of_reach, *broken_plugins()),
            calibrated=tuple(calibrated),
            verdict=verdict,
            foretold=foretold,
            started=clock.started,
            seconds=clock.seconds,
            name_of=namer(store.secret(), case.sources_digest),
            rng=_generator(plan.run.seed, "report"),
        )
    )


def _generator(seed: int, purpose: str) -> np.random.Generator:
    digest = hashlib.sha256(purpose.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


class _Clock:
    """Passes stages on and keeps their wall time."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.seconds: dict[str, float] = {}
        self.started = datetime.now(timezone.utc)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        begin = time.perf_counter()
        try:
            with self.inner.stage(name, total) as step:
                yield step
        finally:
            spent = time.perf_counter() - begin
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
