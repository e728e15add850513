"""``--arch``: our networks, torchvision's, trusted code, plug-ins."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.loading import files
from unaudit.errors import InputError, UnsafeModelError, UsageError
from unaudit.loading import ARCHITECTURES, Built, LoadedModel, Trust, load_model, torchvision_shim
from unaudit.loading.architectures import Argument, build_architecture, parse_architecture
from unaudit.loading.networks import resnet

TRUST = Trust("Ada, our own training code")


def build(text: str, trust: Trust | None = None) -> Built:
    return build_architecture(parse_architecture(text), trust)


class TestSpec:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("3", 3),
            ("-3", -3),
            ("3.0", 3.0),
            ("1e-3", 0.001),
            (".5", 0.5),
            ("true", True),
            ("False", False),
            ("bn", "bn"),
            ("64-32-10", "64-32-10"),
            ("1_000", "1_000"),
            ("nan", "nan"),
            ("", ""),
            ("a=b", "a=b"),
        ],
    )
    def test_typed_values(self, text: str, value: Argument) -> None:
        parsed = parse_architecture(f"unaudit:mlp?x={text}").arguments["x"]
        assert parsed == value
        assert type(parsed) is type(value)

    def test_one_spelling(self) -> None:
        text = "unaudit:resnet?width=16&depth=8&b=TRUE"
        assert str(parse_architecture(text)) == "unaudit:resnet?b=true&depth=8&width=16"

    @pytest.mark.parametrize("text", ["", ":", "unaudit:", ":mlp", "mlp", "unaudit:mlp?=3"])
    def test_malformed(self, text: str) -> None:
        with pytest.raises(UsageError):
            parse_architecture(text)


class TestOwnNetworks:
    @pytest.mark.parametrize(
        ("depth", "parameters"),
        # He et al. 2016, table 6: 0.27M at depth 20, where shortcuts have no parameters (option A)
        [(8, 78_042), (20, 269_722 + (16 * 32 + 64) + (32 * 64 + 128))],
    )
    def test_resnet_parameters(self, depth: int, parameters: int) -> None:
        network = build(f"unaudit:resnet?depth={depth}").module
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters

    def test_resnet_shape(self) -> None:
        network = build("unaudit:resnet?depth=8&width=4&num_classes=7&in_channels=1").module
        assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
        assert network(torch.zeros(2, 1, 8, 12)).shape == (2, 7)
        names = [name for name, _ in network.named_children()]
        assert names == ["stem", "stage1", "stage2", "stage3", "pool", "flatten", "head"]

    def test_resnet_depth_counts_layers(self) -> None:
        for depth in (8, 14, 20):
            network = resnet(depth, 2, 10, 3)
            kernels = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
            assert sum(kernel.kernel_size == (3, 3) for kernel in kernels) + 1 == depth

    def test_mlp(self) -> None:
        network = build("unaudit:mlp?widths=64-128-32-10").module
        assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
        *_, (name, last) = network.named_children()
        assert name == "head"
        assert isinstance(last, nn.Linear)
        assert not network.training

    def test_building_does_not_touch_the_global_generator(self) -> None:
        before = torch.random.get_rng_state()
        build("unaudit:mlp?widths=4-8-3")
        assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
class TestTorchvision:
    def test_resnet18_round_trip(self, tmp_path: Path) -> None:
        arch = "torchvision:resnet18?num_classes=10"
        network = build(arch).module
        path = files.saved({"state_dict": network.state_dict()}, tmp_path / "m.pth.tar")
        model = load_model(str(path), arch=arch)
        assert isinstance(model, LoadedModel)
        assert model.provenance.parameters == 11_181_642
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(model.module(images), network(images))
        with pytest.raises(InputError, match="a model of 10 classes, not 1000: set num_classes=10"):
            load_model(str(path), arch="torchvision:resnet18")

    def test_the_class_of_a_pickled_network_is_named(self, tmp_path: Path) -> None:
        module = build("torchvision:squeezenet1_1?num_classes=2").module
        path = files.saved(module, tmp_path / "m.pt")
        with pytest.raises(UsageError) as caught:
            load_model(str(path), arch=None)
        assert "the file says torchvision.models.squeezenet.SqueezeNet; add --arch torch" in str(
            caught.value
        )
        model = load_model(str(path), arch="torchvision:squeezenet1_1?num_classes=2")
        assert isinstance(model, LoadedModel)
        for key, value in module.state_dict().items():
            assert torch.equal(model.module.state_dict()[key], value)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("torchvision:resnet81", "did you mean 'resnet18'"),
            ("torchvision:zzz", "see torchvision.models"),
            ("torchvision:fasterrcnn_resnet50_fpn", "unknown architecture"),
            ("torchvision:squeezenet1_1?num_clases=3", "did you mean 'num_classes'"),
            ("torchvision:squeezenet1_1?num_classes=ten", "cannot be built from these arguments"),
            ("torchvision:resnet18?weights=DEFAULT", "'weights' would load weights"),
            ("torchvision:resnet18?pretrained=true", "'pretrained' would load weights"),
        ],
    )
    def test_refused(self, text: str, says: str) -> None:
        with pytest.raises(UsageError, match=says):
            build(text)

    def test_models_that_warn_are_built_in_silence(self) -> None:
        assert isinstance(build("torchvision:googlenet?num_classes=2").module, nn.Module)


class TestShim:
    """What :func:`import_torchvision` does with each way that an import can fail."""

    def import_with(self, monkeypatch: pytest.MonkeyPatch, *outcomes: Any) -> types.ModuleType:
        remaining = list(outcomes)

        def attempt() -> types.ModuleType:
            outcome = remaining.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            assert isinstance(outcome, types.ModuleType)
            return outcome

        monkeypatch.setattr(torchvision_shim, "_import", attempt)
        imported = torchvision_shim.import_torchvision()
        assert not remaining
        return imported

    def test_a_plain_import_declares_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torchvision_shim, "_declare_operators", lambda: pytest.fail("declared"))
        assert self.import_with(monkeypatch, sys).__name__ == "sys"

    def test_missing_operators_are_declared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        declared: list[bool] = []
        monkeypatch.setattr(torchvision_shim, "_declare_operators", lambda: declared.append(True))
        failure = RuntimeError("operator torchvision::nms does not exist")
        assert self.import_with(monkeypatch, failure, sys).__name__ == "sys"
        assert declared == [True]

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        missing = ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
        with pytest.raises(UsageError, match=r"pip install 'unaudit\[vision\]'"):
            self.import_with(monkeypatch, missing)

    @pytest.mark.parametrize(
        "failure",
        [RuntimeError("other"), ImportError("libc"), ModuleNotFoundError("No PIL", name="PIL")],
    )
    def test_other_failures_are_told(
        self, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        with pytest.raises(UsageError, match="install the release that matches torch"):
            self.import_with(monkeypatch, failure)

    @pytest.mark.skipif(
        importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
    )
    def test_in_this_environment(self) -> None:
        torchvision = torchvision_shim.import_torchvision()
        assert torchvision is importlib.import_module("torchvision")
        assert torchvision_shim.import_torchvision() is torchvision


SOURCE = """
from pathlib import Path
import torch
Path("marker").touch()

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = torch.nn.Linear(width, 3)

def make(width=4):
    return Net(width)

def leave():
    raise SystemExit(0)

def fail():
    raise ValueError("first line\\nsecond")

def number():
    return 3
"""


class TestTrustedCode:
    @pytest.fixture
    def code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
        """A package in the working directory, under a name of its own per test."""
        name = "trusted_" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "nets.py").write_text(SOURCE)
        monkeypatch.chdir(tmp_path)
        return f"py:{name}.nets"

    def test_runs_only_on_trust(self, code: str, tmp_path: Path) -> None:
        path = files.saved(
            {"fc.weight": torch.ones(3, 5), "fc.bias": torch.ones(3)}, tmp_path / "m"
        )
        arch = f"{code}:make?width=5"
        with pytest.raises(UnsafeModelError, match="add --trust-code"):
            load_model(str(path), arch=arch)
        assert not Path("marker").exists()
        before = list(sys.path)
        model = load_model(str(path), arch=arch, trust=TRUST)
        assert Path("marker").exists()
        assert sys.path == before
        assert isinstance(model, LoadedModel)
        assert model.provenance.tier == "T2"
        source = hashlib.sha256(SOURCE.encode()).hexdigest()
        (note,) = model.provenance.notes
        assert source in note
        assert "trusted: Ada, our own training code" in note
        assert str(tmp_path) not in note

    def test_the_source_is_part_of_the_digest(self, code: str, tmp_path: Path) -> None:
        path = files.saved(
            {"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)}, tmp_path / "m"
        )
        module = code.removeprefix("py:")
        digests = []
        for comment in ("", "# changed\n"):
            Path(*module.split(".")).with_suffix(".py").write_text(SOURCE + comment)
            sys.modules.pop(module, None)
            model = load_model(str(path), arch=f"{code}:make", trust=TRUST)
            digests.append(model.digest)
        assert digests[0] != digests[1]

    @pytest.mark.parametrize(
        ("factory", "error", "says"),
        [
            ("mak", UsageError, "did you mean 'make'"),
            ("make?widht=3", InputError, "unexpected keyword argument 'widht'"),
            ("leave", InputError, "failed: SystemExit: 0"),
            ("fail", InputError, "failed: ValueError: first line$"),
            ("number", UsageError, "returned int, not a torch.nn.Module"),
        ],
    )
    def test_refused(self, code: str, factory: str, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says):
            build(f"{code}:{factory}", TRUST)

    @pytest.mark.parametrize(
        ("text", "error", "says"),
        [
            ("py:no_such_module_here:f", UsageError, "no module of that name"),
            ("py:no_such_package_here.nets:f", InputError, "needs 'no_such_package_here'"),
            ("py:sys:exit", UsageError, "no module of that name"),
            ("py:module", UsageError, "package.module:factory"),
            ("py:a b:c", UsageError, "package.module:factory"),
            ("py:a:b.c", UsageError, "package.module:factory"),
        ],
    )
    def test_no_such_code(self, text: str, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says):
            build(text, TRUST)


class TestPlugIns:
    def test_a_third_party_prefix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def builder(name: str, arguments: Mapping[str, Argument], trust: Trust | None) -> Built:
            return Built(nn.Linear(int(arguments["width"]), 2), notes=(f"made {name}",))

        monkeypatch.setitem(ARCHITECTURES._items, "acme/nets", builder)
        state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
        path = files.saved(state, tmp_path / "m.pt")
        model = load_model(str(path), arch="acme/nets:line?width=3")
        assert model.provenance.notes == ("made line",)
        assert model.provenance.arch == "acme/nets:line?width=3"

    def test_a_broken_one_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ARCHITECTURES.broken, "acme/nets", "ImportError: acme")
        with pytest.raises(UsageError, match="its plug-in fails: ImportError: acme"):
            parse_architecture("acme/nets:line")
