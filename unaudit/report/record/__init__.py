"""The audit record: the product. Every report is rendered from it alone, without torch.

The classes of this package are the schema; ``record.schema.json`` beside it is generated from them
(``python -m unaudit.report.record``) and a test keeps the two equal. Numbers that do not exist are
``null``, never NaN. Nothing here names a folder of the auditor's machine, or a training example to
anybody without the auditor's key.
"""

from unaudit.report.record.base import Interval, Outcome, Part, ProbeOutcome, Rate, Role
from unaudit.report.record.calibration import (
    Calibration,
    CalibrationMode,
    Histogram,
    OperatingPoint,
    ProbeControl,
    Roc,
)
from unaudit.report.record.controls import Accuracy, ClassAccuracy, Controls
from unaudit.report.record.estimate import RetrainedEstimate
from unaudit.report.record.findings import FamilyFinding, Finding, Skip, Verdict
from unaudit.report.record.inputs import ClassCount, Duplicates, ModelRef, Request, Subject
from unaudit.report.record.inside import (
    Curve,
    Curves,
    Depth,
    Inside,
    LayerChange,
    ProjectedModel,
    Projection,
    ShallowChange,
)
from unaudit.report.record.language import (
    Language,
    ModelExtraction,
    ModelPerplexity,
    TextSplit,
)
from unaudit.report.record.matrix import (
    Fidelity,
    Matrix,
    MatrixCell,
    MatrixColumn,
    MatrixRow,
    Sanity,
    SplitFidelity,
)
from unaudit.report.record.plan import Plan, PlannedProbe, Policy
from unaudit.report.record.shadows import (
    ExposedGroup,
    GroupEvidence,
    ShadowAttack,
    ShadowModels,
    Worst,
    WorstExample,
)
from unaudit.report.record.whole import (
    ADDED,
    SCHEMA_PATH,
    SCHEMA_VERSION,
    Environment,
    Record,
    json_schema,
)

__all__ = [
    "ADDED",
    "SCHEMA_PATH",
    "SCHEMA_VERSION",
    "Accuracy",
    "Calibration",
    "CalibrationMode",
    "ClassAccuracy",
    "ClassCount",
    "Controls",
    "Curve",
    "Curves",
    "Depth",
    "Duplicates",
    "Environment",
    "ExposedGroup",
    "FamilyFinding",
    "Fidelity",
    "Finding",
    "GroupEvidence",
    "Histogram",
    "Inside",
    "Interval",
    "Language",
    "LayerChange",
    "Matrix",
    "MatrixCell",
    "MatrixColumn",
    "MatrixRow",
    "ModelExtraction",
    "ModelPerplexity",
    "ModelRef",
    "OperatingPoint",
    "Outcome",
    "Part",
    "Plan",
    "PlannedProbe",
    "Policy",
    "ProbeControl",
    "ProbeOutcome",
    "ProjectedModel",
    "Projection",
    "Rate",
    "Record",
    "Request",
    "RetrainedEstimate",
    "Roc",
    "Role",
    "Sanity",
    "ShadowAttack",
    "ShadowModels",
    "ShallowChange",
    "Skip",
    "SplitFidelity",
    "Subject",
    "TextSplit",
    "Verdict",
    "Worst",
    "WorstExample",
    "json_schema",
]
