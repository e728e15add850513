"""The way of a model file: hash, sniff, tier, tensors, architecture, strict load, checks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from unaudit.errors import UsageError
from unaudit.loading.architectures import Built, build_architecture, parse_architecture
from unaudit.loading.checkpoint import TensorFile, read_checkpoint
from unaudit.loading.fit import Fitted, digest_of, fit
from unaudit.loading.hugging_face import fit_network, load_folder
from unaudit.loading.limits import Limits
from unaudit.loading.model import LoadedModel, Model, Provenance, Trust
from unaudit.loading.private_copy import PrivateCopy, private_copy
from unaudit.loading.recorded import load_recorded
from unaudit.loading.wording import naming
from unaudit.text import plain

DEFAULT_LIMITS = Limits()
OUTPUTS = "outputs:"


def load_model(
    spec: str, *, arch: str | None, trust: Trust | None = None, limits: Limits = DEFAULT_LIMITS
) -> Model:
    """Load what ``spec`` names without trusting it.

    Args:
        spec: A file, a folder in Hugging Face layout, or ``outputs:FILE.npz`` for recorded outputs.
        arch: Architecture spec; a state dict cannot be loaded without one.
        trust: Permission to run code from the model's side, for ``py:`` architectures.

    Raises:
        UsageError: the architecture is missing, unknown or cannot be built.
        InputError: the file cannot be used, or its weights do not fit the architecture.
        UnsafeModelError: the file or the architecture was refused before it could do harm.
    """
    if spec.startswith(OUTPUTS):
        return load_recorded(Path(spec.removeprefix(OUTPUTS)), limits)
    path, label = Path(spec), plain(spec, 300)
    architecture = None if arch is None else parse_architecture(arch)
    if path.is_dir():
        return load_folder(path, architecture, limits)
    with ExitStack() as until_loaded:
        with naming(label):
            copy = until_loaded.enter_context(private_copy(path, limits))
            file = read_checkpoint(copy.path, limits)
            if architecture is None:
                raise _needs_architecture(file)
        built = build_architecture(architecture, trust)
        with naming(label):
            if built.text is not None:
                fitted, _ = fit_network(built.module, file.tensors, built.text)
            else:
                fitted = fit(built.module, file.tensors)
    digest = digest_of(built.module, built.spec or str(architecture), built.code_sha256 or "")
    came = _provenance(path, copy, file, built, str(architecture), fitted)
    return LoadedModel(built.module, came, digest, built.spec, built.text)


def _provenance(
    path: Path,
    copy: PrivateCopy,
    file: TensorFile,
    built: Built,
    arch: str,
    fitted: Fitted,
) -> Provenance:
    claim = (
        (f"pickled as {plain(file.claimed_class)}; no line of it was run",)
        if file.claimed_class
        else ()
    )
    return Provenance(
        name=plain(path.name),
        sha256=copy.sha256,
        size_bytes=copy.size_bytes,
        format=file.format,
        tier=file.tier if built.code_sha256 is None else "T2",
        arch=plain(arch, 300),
        parameters=fitted.parameters,
        ignored=file.ignored,
        notes=(*file.notes, *claim, *fitted.notes, *built.notes),
    )


def _needs_architecture(file: TensorFile) -> UsageError:
    if file.claimed_class is None:
        return UsageError(
            "holds weights but no network; add --arch, for example "
            "torchvision:resnet18?num_classes=10, or hf:FOLDER of a Hugging Face model"
        )
    known = file.claimed_class.startswith("torchvision.models.")
    example = "torchvision:… (the constructor's name)" if known else "py:package.module:factory"
    return UsageError(f"the file says {plain(file.claimed_class)}; add --arch {example}")
