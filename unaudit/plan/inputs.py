"""What is audited, on which data, for which request, against which models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from unaudit.evidence import Scenario
from unaudit.plan.section import ClassLabel, Location, Positive, Section


class ModelSection(Section):
    """What is audited."""

    path: Location | None = None
    """Weights file or ``outputs:FILE.npz``."""
    arch: str | None = None
    """``torchvision:resnet18?num_classes=10``, ``unaudit:resnet?depth=8``, ``py:pkg.mod:factory``
    (which runs code: ``trust_code``)."""
    claimed_method: str | None = None
    """The unlearning method as stated by whoever hands the model over; printed, never used."""
    trust_code: bool = False
    """Allow tiers that execute code from the model's side (``py:`` factories)."""
    trust_reason: str | None = None
    """Who trusts that code, and why; printed in the report."""
    layers: tuple[str, ...] | None = None
    """Modules whose outputs white-box probes look at, from input to output. Default: found."""
    head: str | None = None
    """The last linear layer. Default: found."""

    @model_validator(mode="after")
    def _reason_needs_trust(self) -> ModelSection:
        if self.trust_reason is not None and not self.trust_code:
            raise ValueError("trust_reason without trust_code; add --trust-code or drop the reason")
        return self


class DataSection(Section):
    """Where the examples are, and how ids, inputs and labels are found in them."""

    train: Location | None = None
    """The original's training data: forget and retain examples together."""
    unseen: Location | None = None
    """Examples that no audited model was trained on."""
    validation: Location | None = None
    """Never-trained examples that an unlearner may have used; never non-members of an attack."""
    id_type: Literal["index", "key"] | None = None
    """What forget ids are: positions from 0, or keys of the id column. Default: ``index`` for
    arrays, else ``key``."""
    id_column: str | None = None
    """Default: ``id`` where such a column or array exists."""
    group_column: str | None = None
    """Column or array that says whose record an example is, where one person has several; evidence
    is then also combined per group. Never an input. Default: none."""
    input_column: str | None = None
    """Column or array of the inputs. Default: ``image``, ``x``, ``inputs`` or ``features``,
    whichever is the only one."""
    label_column: str | None = None
    """Default: ``label``, ``y`` or ``labels``, if unique. Texts of language models need none."""
    text_column: str | None = None
    """Column of texts in parquet, csv or jsonl. Default: ``text``, if it holds texts and
    ``input_column`` names no other."""

    @model_validator(mode="after")
    def _groups_are_no_inputs(self) -> DataSection:
        if self.group_column is not None and self.group_column in (
            self.input_column,
            self.text_column,
        ):
            raise ValueError("group_column names the inputs; name another column or take it out")
        return self


class PreprocessSection(Section):
    """From stored examples to the model's input; hashed into every cache key."""

    resize: tuple[Positive, Positive] | None = None
    """(height, width) in pixels, bilinear with antialiasing."""
    center_crop: tuple[Positive, Positive] | None = None
    """(height, width) in pixels."""
    channels: Literal["rgb", "gray"] | None = None
    """Color conversion of decoded images. Default: ``rgb``."""
    layout: Literal["as-is", "nhwc"] = "as-is"
    """``nhwc`` moves the last axis of stored arrays to the front of each example."""
    scale: Annotated[float, Field(gt=0.0)] | None = None
    """Divisor of raw values. Default: 255 for decoded images and uint8 arrays, else 1."""
    mean: tuple[float, ...] | None = None
    """Per channel, after scaling."""
    std: tuple[Annotated[float, Field(gt=0.0)], ...] | None = None
    """Per channel, after scaling."""
    tokenizer: Location | None = None
    """Of texts: a folder with ``tokenizer.json``, or that file. Default: the model's own."""
    max_length: Positive | None = None
    """Of texts: tokens, special ones included. Default: what the model takes, at most 512; a
    language model reads whole texts, longer ones than it takes in overlapping windows."""
    truncation: Literal["end", "start", "refuse"] = "end"
    """Of longer texts, the end or the start is cut off; or they are an error."""

    @model_validator(mode="after")
    def _mean_and_std_together(self) -> PreprocessSection:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError("mean and std must have the same number of channels")
        return self


class RequestSection(Section):
    """What was asked to be removed."""

    forget: Location | None = None
    """File of forget ids, one per line; marks of canaries after a tab. Or ``class:NAME`` for all
    training examples of a class, ``keyword:WORD`` for all training texts with a word."""
    scenario: Scenario | None = None
    """Default: detected from the labels of the forget set."""
    kind: Literal["erase", "relabel"] = "erase"
    """``relabel``: the forget set are training examples whose labels were swapped between two
    classes, and the confusion that they cause is to go. The training data holds the wrong labels,
    the unseen data right ones."""
    swapped: tuple[ClassLabel, ClassLabel] | None = None
    """The two classes, by number or name, of a relabeling. Default: those of the forget set."""

    @model_validator(mode="after")
    def _two_classes_of_a_relabeling(self) -> RequestSection:
        if self.swapped is None:
            return self
        if self.kind != "relabel":
            raise ValueError("swapped is for relabelings; add kind = 'relabel' or take it out")
        if self.swapped[0] == self.swapped[1]:
            raise ValueError(f"swapped names {self.swapped[0]!r:.60} twice; name two classes")
        return self


class ReferencesSection(Section):
    """Models whose truth is known."""

    original: Location | None = None
    """The model before unlearning: the positive control."""
    retrained: tuple[Location, ...] = ()
    """Models trained without the forget set, different seeds: the negative controls."""
