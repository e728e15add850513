"""How often the verdict errs, measured on models of known truth.

    python bench/operating_characteristics.py [--scenario sample|class] [--audits 200]
                                              [--references 5] [--pool 40] [--originals 8]
                                              [--access white-box] [--shadows 64]
                                              [--unlearner finetune]

Trains a pool of originals and retrained models on the digits, then audits: each audit draws one
original, ``--references`` retrained models and a subject that is a retrained model outside the
references, the original itself, or its head-distilled fake. Prints how often each subject fails,
passes or stays inconclusive, with the 95 % Clopper–Pearson interval. Audits share the pool, the
data and the cut, so that the intervals describe this pool; ``--seed`` gives another. With black-box
access the policy accepts black-box evidence, so that there is something to err with.

With ``--shadows`` the attacks that need shadow models run as well, all on the same ones. Then it is
also printed how often each membership attack alone finds the subject beyond the margin at α, and
how often it is informative.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from torch import nn

from unaudit.access import within_access
from unaudit.calibration import calibrate
from unaudit.case import Candidate, Case, build_case
from unaudit.cost import Estimator
from unaudit.demo import LAYOUTS, Digits, build_world, load_digits, make_subject, train_model
from unaudit.engine.store import Store
from unaudit.engine.threads import threads_for
from unaudit.evidence import Probe, Skipped
from unaudit.forward import ForwardPass
from unaudit.judging import Judged, failing_side
from unaudit.loading import LoadedModel, Provenance
from unaudit.measuring import Answer, Measurement, Reading, probe_generator
from unaudit.plugins import configured_probes
from unaudit.shadows.make import prepare, train_prepared
from unaudit.stats import clopper_pearson
from unaudit.verdict import Verdict, decide
from unaudit.workshop import Workshop

ALPHA, TAU = 0.05, 0.5


def main() -> None:
    options = parse()
    layout = LAYOUTS[options.scenario]
    digits = load_digits(layout, options.seed)
    begin = time.perf_counter()
    with threads_for(0):
        pool = train_pool(options, digits)
    print(f"trained {len(pool)} models in {time.perf_counter() - begin:.0f} s", flush=True)
    with TemporaryDirectory() as folder:
        run(options, Bench(options, digits, pool, Path(folder)))


def run(options: argparse.Namespace, bench: Bench) -> None:
    print("| subject | audits | fail | pass | inconclusive |\n|---|---|---|---|---|")
    verdicts = {}
    for subject in ("retrained", "original", "head-distilled"):
        found = verdicts[subject] = [bench.audit(subject, n) for n in range(options.audits)]
        outcomes = Counter(verdict.outcome for verdict in found)
        cells = [share(outcomes[name], options.audits) for name in ("fail", "pass", "inconclusive")]
        print(f"| {subject} | {options.audits} | {' | '.join(cells)} |", flush=True)
    if not options.shadows:
        return
    print(
        "\n| attack alone | informative | retrained flagged | original flagged |\n|---|---|---|---|"
    )
    for name in sorted(
        {j.calibrated.measurement.card.name for j in members(verdicts["retrained"])}
    ):
        counts = [
            [
                judged.calibrated
                for judged in members(found)
                if judged.calibrated.measurement.card.name == name
            ]
            for found in (verdicts["retrained"], verdicts["original"])
        ]
        seeing = sum(item.informative for item in counts[0])
        flagged = [
            sum(
                item.informative and failing_side(item.index, "membership") <= ALPHA
                for item in items
            )
            for items in counts
        ]
        rates = [share(count, options.audits) for count in (seeing, *flagged)]
        print(f"| {name} | {' | '.join(rates)} |")


def members(verdicts: Sequence[Verdict]) -> list[Judged]:
    """All membership attacks of some audits."""
    judged = [judged for verdict in verdicts for judged in verdict.probes]
    return [one for one in judged if one.calibrated.family == "membership"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=("sample", "class"), default="sample")
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--originals", type=int, default=8)
    parser.add_argument("--access", choices=("black-box", "white-box"), default="black-box")
    parser.add_argument("--shadows", type=int, default=0)
    parser.add_argument("--unlearner")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def train_pool(options: argparse.Namespace, digits: Digits) -> dict[str, nn.Module]:
    """Networks by name: ``retrained 7``, ``original 3``, ``head-distilled 3``."""
    widths = LAYOUTS[options.scenario].widths
    pool: dict[str, nn.Module] = {}
    for number in range(options.pool):
        rows, key = digits.retain, f"retrained {number}"
        pool[key] = train_model(digits, rows, widths, options.seed, 10_000 + number)
    for number in range(options.originals):
        original = train_model(digits, digits.train, widths, options.seed, 20_000 + number)
        pool[f"original {number}"] = original
        fake = make_subject("head-distilled", original, digits, options.scenario, options.seed)
        pool[f"head-distilled {number}"] = fake
    return pool


def share(count: int, n: int) -> str:
    interval = clopper_pearson(count, n, 0.95)
    return f"{count / n:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


class Bench:
    """Audits by drawing from the pool; what a probe says of a model is asked for once."""

    def __init__(
        self,
        options: argparse.Namespace,
        digits: Digits,
        pool: dict[str, nn.Module],
        folder: Path,
    ) -> None:
        self.options = options
        forward = forward_pass(options, digits, folder)
        self.sizes = {name: len(split) for name, split in forward.case.splits.items()}
        self.probes = within_access(configured_probes({})[0], options.access)[0]
        candidates = [candidate_of(name, module) for name, module in pool.items()]
        self.views = {c.label: forward.view(c) for c in candidates}
        self.inside = {c.label: forward.white_view(c) for c in candidates}
        self.case = forward.case
        self.answers: dict[tuple[str, ...], Answer | None] = {}

    def audit(self, subject: str, number: int) -> Verdict:
        """The verdict of one audit; (seed, subject, number) decides what is drawn."""
        rng = np.random.default_rng([self.options.seed, len(subject), number])
        which = int(rng.integers(self.options.originals))
        drawn = rng.permutation(self.options.pool)[: self.options.references + 1]
        retrained = [f"retrained {n}" for n in drawn[1:]]
        names = {
            "retrained": f"retrained {drawn[0]}",
            "original": f"original {which}",
            "head-distilled": f"head-distilled {which}",
        }
        case = cast(
            Any,
            SimpleNamespace(
                splits=self.case.splits,
                scenario=self.options.scenario,
                forget_classes=self.case.forget_classes,
                mix_differs=False,
                original=object(),
                retrained=retrained,
            ),
        )
        models = names[subject], f"original {which}", retrained
        asked = [self.measure(probe, *models) for probe in self.probes]
        measurements = [measurement for measurement in asked if measurement is not None]
        calibrated = calibrate(measurements, case, alpha=ALPHA, tau=TAU, replicates=500, rng=rng)
        return decide(
            calibrated,
            case,
            alpha=ALPHA,
            tau=TAU,
            access=self.options.access,
            accept_black_box=self.options.access == "black-box",
        )

    def measure(
        self, probe: Probe, subject: str, original: str, retrained: list[str]
    ) -> Measurement | None:
        """None where the probe declines."""

        def reading(model: str) -> Reading | None:
            others = [other for other in retrained if other != model]
            asked = [(model, other) for other in others] if probe.card.comparative else [(model,)]
            answers = [self.answer(probe, *models) for models in asked]
            given = [answer for answer in answers if answer is not None]
            return Reading(tuple(given)) if len(given) == len(answers) else None

        own, before, *others = [reading(model) for model in (subject, original, *retrained)]
        known = [other for other in others if other is not None]
        if own is None or before is None or len(known) < len(others):
            return None
        return Measurement(probe, own, before, tuple(known))

    def answer(self, probe: Probe, *models: str) -> Answer | None:
        key = (probe.card.name, *models)
        if key not in self.answers:
            views: Any = self.inside if probe.card.access == "white-box" else self.views
            rng = probe_generator(self.options.seed, probe)
            declined = obstacle_without_references(probe, self.case)
            found = declined or cast(Any, probe)(*(views[name] for name in models), rng)
            self.answers[key] = None if isinstance(found, Skipped) else found
        return self.answers[key]


def obstacle_without_references(probe: Probe, case: Case) -> Skipped | None:
    """What keeps a probe from running here, however many references there are."""
    if case.scenario not in probe.card.scenarios or probe.card.needs - set(case.splits):
        return Skipped("does not apply")
    shadows, wanted = case.shadows, probe.card.shadows
    if wanted and (shadows is None or (wanted == "unlearned" and not shadows.unlearner)):
        return Skipped("there are no such shadow models")
    return None


def forward_pass(options: argparse.Namespace, digits: Digits, folder: Path) -> ForwardPass:
    """Views of the digits, through the files that an audit would read."""
    plan = build_world(
        folder,
        "original",
        options.scenario,
        options.seed,
        retrained=2,
        shadows=options.shadows,
    )
    store = Store(folder / "store")
    case = build_case(plan, store)
    if options.shadows:
        section = plan.shadows.model_copy(update={"unlearner": options.unlearner})
        workshop = Workshop(case, plan, store)
        estimator = Estimator(workshop)
        prepared = prepare(case, section, workshop, estimator, plan.policy.alpha)
        case = replace(case, shadows=train_prepared(prepared, case, workshop))
    return ForwardPass(case, store, batch_size=2048, device="cpu", record_features=True)


def candidate_of(name: str, module: nn.Module) -> Candidate:
    provenance = Provenance(name, sha256="", size_bytes=0, format="none", tier="T0")
    return Candidate("subject", name, LoadedModel(module, provenance, name))


if __name__ == "__main__":
    main()
