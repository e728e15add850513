"""The estimate of retrained accuracy as the record shows it, the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from unaudit.case import Case
from unaudit.config import hide_folders
from unaudit.report import record as schema
from unaudit.twin import METHOD, Foretold
from unaudit.views import BlackBox


def retrained_estimate(
    case: Case, view_of: Mapping[str, BlackBox], found: Foretold
) -> schema.RetrainedEstimate:
    """What was foretold, and what retrained models really do.

    Args:
        case: with its retrained models, if there are any.
        view_of: their outputs, by label.
        found: from :func:`unaudit.twin.foretell`.
    """
    estimate = found.estimate
    truths = [
        float(view_of[model.label].predictions("forget").hit_rate.mean())
        for model in case.retrained
    ]
    return schema.RetrainedEstimate(
        value=None if estimate is None else estimate.value,
        stderr=None if estimate is None else estimate.stderr,
        error=None if estimate is None else estimate.error,
        plain=None if estimate is None else estimate.plain,
        examples=None if estimate is None else estimate.examples,
        validation=found.validation,
        method=METHOD,
        recipe_given=found.recipe_given,
        reason=None if found.reason is None else hide_folders(found.reason),
        truth=fmean(truths) if truths else None,
        retrained=len(truths),
    )
