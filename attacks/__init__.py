"""The probes that come with unaudit; importing this package registers them.

A probe is one file that registers itself, plus its line below. The order is that of the reports.
"""

from __future__ import annotations

from importlib import import_module

MODULES = (
    "black_box.accuracy",
    "black_box.perplexity",
    "black_box.confidence",
    "black_box.entropy",
    "black_box.modified_entropy",
    "black_box.loss",
    "black_box.margin",
    "black_box.train_vs_test",
    "black_box.zlib_ratio",
    "black_box.min_k",
    "black_box.min_k_plus_plus",
    "black_box.top_entropy",
    "black_box.extraction",
    "black_box.canary",
    "black_box.lira",
    "black_box.u_lira",
    "black_box.rmia",
    "white_box.gradient_mia",
    "white_box.feature_mia",
    "white_box.miars",
    "black_box.jsd",
    "black_box.activation_distance",
    "black_box.disagreement",
    "black_box.zrf",
    "black_box.klom",
    "black_box.interclass_confusion",
    "white_box.linear_probe",
    "white_box.head_recovery",
    "white_box.clustering",
    "white_box.idi",
    "white_box.dimensional_alignment",
    "white_box.cka",
    "white_box.feature_distance",
    "white_box.weight_distance",
    "white_box.relearn",
    "black_box.aus",
)

for _module in MODULES:
    import_module(f"attacks.{_module}")
