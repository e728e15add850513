"""What honest people save is read back exactly, and the provenance says what was left out."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.loading import files
from tests.loading.files import ARCH
from unaudit.errors import InputError, UnsafeModelError, UsageError
from unaudit.loading import Limits, LoadedModel, load, load_model
from unaudit.loading.checkpoint import read_checkpoint, require_torch

LIMITS = Limits()


def loaded(path: Path, arch: str = ARCH) -> LoadedModel:
    model = load_model(str(path), arch=arch)
    assert isinstance(model, LoadedModel)
    return model


def same(module: nn.Module, state: Any) -> bool:
    mine = module.state_dict()
    return list(mine) == list(state) and all(
        mine[key].dtype == torch.float32 and torch.equal(mine[key], state[key].float())
        for key in state
    )


class Unimportable(nn.Module):
    """Gone when the file is read: pickled by name only."""

    def __init__(self) -> None:
        super().__init__()
        self.body = files.network()
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("transient", torch.ones(2), persistent=False)
        self.register_parameter("absent", None)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.note = {"any": [1, 2, 3]}


class TestFormats:
    def test_state_dict(self, tmp_path: Path) -> None:
        network = files.network()
        path = files.saved(network.state_dict(), tmp_path / "m.pt")
        model = loaded(path)
        assert same(model.module, network.state_dict())
        assert not model.module.training
        came = model.provenance
        assert came.name == "m.pt"
        assert came.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert came.size_bytes == path.stat().st_size
        assert came.format == "torch checkpoint (weights only)"
        assert (came.tier, came.arch, came.ignored, came.notes) == ("T1", ARCH, (), ())
        assert came.parameters == 4 * 6 + 6 + 6 * 3 + 3

    def test_safetensors(self, tmp_path: Path) -> None:
        network, path = files.network(), tmp_path / "m.bin"
        save_file(network.state_dict(), path, metadata={"format": "pt", "made by": "x\x1b[31m"})
        model = loaded(path)
        assert same(model.module, network.state_dict())
        assert model.provenance.tier == "T0"
        assert model.provenance.ignored == ("metadata made by",)

    def test_digest_depends_on_the_weights_not_on_the_file(self, tmp_path: Path) -> None:
        state = files.network().state_dict()
        save_file(state, tmp_path / "a.safetensors")
        digests = {
            loaded(tmp_path / "a.safetensors").digest,
            loaded(files.saved(state, tmp_path / "b.pt")).digest,
            loaded(files.saved({"net": state, "epoch": 1}, tmp_path / "c.pt")).digest,
        }
        assert len(digests) == 1
        other = files.saved(files.network(1).state_dict(), tmp_path / "d.pt")
        assert loaded(other).digest not in digests

    # torch itself cannot read what it saves in protocol 0
    @pytest.mark.parametrize("protocol", range(1, 6))
    def test_every_protocol_of_torch_save(self, tmp_path: Path, protocol: int) -> None:
        network = files.network()
        path = tmp_path / "m.pt"
        torch.save({"state_dict": network.state_dict()}, path, pickle_protocol=protocol)
        assert same(loaded(path).module, network.state_dict())
        torch.save(network, path, pickle_protocol=protocol)
        assert same(loaded(path).module, network.state_dict())

    def test_both_readers_agree(self, tmp_path: Path) -> None:
        """The restricted unpickler of torch is the oracle of the inert reader."""
        base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        state: dict[str, Any] = {
            "transposed": base.T,
            "slice": base[1:3, ::2],
            "scalar": torch.tensor(3.0),
            "empty": torch.empty(0, 4),
            "bool": torch.tensor([True, False]),
            "int64": torch.arange(4),
            "uint8": torch.arange(4, dtype=torch.uint8),
            "float64": torch.randn(3, dtype=torch.float64, generator=torch.Generator()),
            "half": base.half(),
            "bfloat16": base.bfloat16(),
            "shared": base,
            "parameter": nn.Parameter(base),
        }
        plain = files.saved(state, tmp_path / "plain.pt")
        marked = files.saved({**state, "_": np.float64(1)}, tmp_path / "marked.pt")
        first, second = read_checkpoint(plain, LIMITS), read_checkpoint(marked, LIMITS)
        assert (first.format, second.format) == (
            "torch checkpoint (weights only)",
            "torch checkpoint (inert reader)",
        )
        assert list(first.tensors) == list(second.tensors) == list(state)
        for key, expected in state.items():
            for tensor in (first.tensors[key], second.tensors[key]):
                assert tensor.dtype == expected.dtype
                assert torch.equal(tensor, expected)

    @pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.float8_e4m3fn])
    def test_dtypes_without_a_storage_class(self, tmp_path: Path, dtype: torch.dtype) -> None:
        value = torch.tensor([1, 2, 3]).to(dtype)
        file = read_checkpoint(files.saved({"w": value}, tmp_path / "m.pt"), LIMITS)
        assert torch.equal(file.tensors["w"].view(torch.uint8), value.view(torch.uint8))


class TestInertlyRead:
    def test_a_pickled_module_is_recovered_exactly(self, tmp_path: Path) -> None:
        """Buffers that are not persistent stay out, as in state_dict."""
        module = Unimportable()
        file = read_checkpoint(files.saved(module, tmp_path / "m.pt"), LIMITS)
        expected = module.state_dict()
        assert list(file.tensors) == list(expected)
        assert all(torch.equal(file.tensors[key], expected[key]) for key in expected)
        assert file.claimed_class == f"{__name__}.Unimportable"
        assert file.ignored == ()

    def test_a_wrapped_module(self, tmp_path: Path) -> None:
        network = files.network()
        path = files.saved({"model": nn.DataParallel(network), "epoch": 3}, tmp_path / "m.pt")
        model = loaded(path)
        assert same(model.module, network.state_dict())
        assert model.provenance.ignored == ("epoch",)
        assert model.provenance.notes == (
            "weights found under 'model'",
            "pickled as torch.nn.parallel.data_parallel.DataParallel; no line of it was run",
            "prefix 'module.' removed from its keys",
        )

    def test_numpy_scalars_beside_the_weights(self, tmp_path: Path) -> None:
        """As saved by the public code of SalUn (Fan et al. 2024), extension included."""
        network = files.network()
        evaluation = {
            "accuracy": {"retain": np.float64(99.5), "forget": np.float64(3.25)},
            "MIA": {"confidence": np.float32(0.5), "entropy": np.array([0.25, 0.5])},
        }
        state = {"state_dict": network.state_dict(), "evaluation_result": evaluation}
        path = files.saved(state, tmp_path / "RLcheckpoint.pth.tar")
        with pytest.raises(Exception, match="scalar"):
            torch.load(path, weights_only=True)
        model = loaded(path)
        assert same(model.module, network.state_dict())
        assert model.provenance.ignored == (
            "evaluation_result",
            "numpy scalar ×3",
            "numpy array ×1",
        )
        assert model.provenance.tier == "T1"

    def test_a_training_checkpoint(self, tmp_path: Path) -> None:
        network = files.network()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        network(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        checkpoint = {
            "epoch": 7,
            "arguments": argparse.Namespace(lr=0.1, folder=Path("x")),
            "model_state_dict": network.state_dict(),
            "init_weight": files.network(1).state_dict(),
            "optimizer": optimizer.state_dict(),
            "mean": torch.zeros(3),
        }
        model = loaded(files.saved(checkpoint, tmp_path / "m.pt"))
        assert same(model.module, network.state_dict())
        assert model.provenance.ignored[:5] == (
            "epoch",
            "arguments",
            "init_weight",
            "optimizer",
            "mean",
        )
        assert "argparse.Namespace ×1" in model.provenance.ignored

    def test_hostile_names_are_cleaned_and_counted(self, tmp_path: Path) -> None:
        entries: dict[str, Any] = {f"\x1b[3{i}m{'y' * 500}": i for i in range(30)}
        state = {"state_dict": files.network().state_dict(), **entries}
        ignored = loaded(files.saved(state, tmp_path / "m.pt")).provenance.ignored
        assert len(ignored) == 21
        assert ignored[-1] == "10 more"
        assert all(entry.isprintable() and len(entry) <= 80 for entry in ignored)

    def test_a_parameter_with_attributes(self, tmp_path: Path) -> None:
        state = files.network().state_dict()
        state["head.bias"] = nn.Parameter(state["head.bias"])
        state["head.bias"].role = "bias"
        path = files.saved(state, tmp_path / "m.pt")
        assert same(loaded(path).module, {key: value.detach() for key, value in state.items()})


class TestWrappersAndPrefixes:
    @pytest.mark.parametrize("key", ["state_dict", "model", "net", "params", "my_weights"])
    def test_wrapper_keys(self, tmp_path: Path, key: str) -> None:
        network = files.network()
        path = files.saved({key: network.state_dict(), "acc": 0.5}, tmp_path / "m.pt")
        model = loaded(path)
        assert same(model.module, network.state_dict())
        assert model.provenance.ignored == ("acc",)
        assert model.provenance.notes == (f"weights found under '{key}'",)

    def test_wrappers_in_wrappers(self, tmp_path: Path) -> None:
        network = files.network()
        nested = {"model": {"state_dict": network.state_dict(), "v": 1}, "epoch": 1}
        model = loaded(files.saved(nested, tmp_path / "m.pt"))
        assert same(model.module, network.state_dict())
        assert model.provenance.notes == ("weights found under 'model.state_dict'",)

    @pytest.mark.parametrize(
        "prefix", ["module.", "model.", "_orig_mod.", "_orig_mod.module.", "module.model."]
    )
    def test_prefixes_are_removed_when_that_makes_them_fit(
        self, tmp_path: Path, prefix: str
    ) -> None:
        network = files.network()
        state = {prefix + key: value for key, value in network.state_dict().items()}
        model = loaded(files.saved(state, tmp_path / "m.pt"))
        assert same(model.module, network.state_dict())
        assert model.provenance.notes == (f"prefix '{prefix}' removed from its keys",)

    def test_a_prefix_that_belongs_to_the_network_stays(self, tmp_path: Path) -> None:
        from unaudit.loading.fit import fit

        network = nn.Sequential(OrderedDict(model=nn.Linear(2, 2)))
        state = {key: torch.ones_like(value) for key, value in network.state_dict().items()}
        assert fit(network, state).notes == ()
        assert torch.equal(network.state_dict()["model.weight"], torch.ones(2, 2))

    def test_a_prefix_on_some_keys_only_is_an_error(self, tmp_path: Path) -> None:
        state = files.network().state_dict()
        state["module.head.bias"] = state.pop("head.bias")
        with pytest.raises(InputError, match=r"missing \('head\.bias'\).*'module\.head\.bias'"):
            loaded(files.saved(state, tmp_path / "m.pt"))

    def test_a_prefix_does_not_hide_the_class_count(self, tmp_path: Path) -> None:
        state = {f"module.{key}": value for key, value in files.network().state_dict().items()}
        path = files.saved(state, tmp_path / "m.pt")
        with pytest.raises(InputError, match="a model of 3 classes, not 5"):
            loaded(path, "unaudit:mlp?widths=4-6-5")


class TestNumbers:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_floats_become_float32_with_a_note(
        self, tmp_path: Path, dtype: torch.dtype
    ) -> None:
        state = {key: value.to(dtype) for key, value in files.network().state_dict().items()}
        model = loaded(files.saved(state, tmp_path / "m.pt"))
        assert same(model.module, state)
        name = str(dtype).removeprefix("torch.")
        assert model.provenance.notes == (f"{name} weights converted to float32",)

    def test_whole_numbers_in_another_dtype(self, tmp_path: Path) -> None:
        from unaudit.loading.fit import fit

        network = nn.BatchNorm1d(2)
        state = network.state_dict() | {"num_batches_tracked": torch.tensor(7.0)}
        fit(network, state)
        assert network.num_batches_tracked == torch.tensor(7)
        with pytest.raises(InputError, match="whole numbers belong"):
            fit(network, state | {"num_batches_tracked": torch.tensor(7.5)})

    def test_tied_weights(self, tmp_path: Path) -> None:
        from unaudit.loading.fit import fit

        def tied() -> nn.Sequential:
            first = nn.Linear(3, 3)
            second = nn.Linear(3, 3)
            second.weight = first.weight
            return nn.Sequential(first, second)

        state = {key: torch.full_like(value, 2.0) for key, value in tied().state_dict().items()}
        assert fit(tied(), state).parameters == 9 + 3 + 3
        once = {key: value for key, value in state.items() if key != "1.weight"}
        network = tied()
        fit(network, once)
        assert torch.equal(network.state_dict()["1.weight"], torch.full((3, 3), 2.0))
        with pytest.raises(InputError, match=r"'0\.weight' and '1\.weight' are one weight"):
            fit(tied(), state | {"1.weight": torch.zeros(3, 3)})


class TestPrivateCopy:
    def test_a_file_changed_after_hashing_does_not_matter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest = files.network().state_dict()
        path = files.saved(honest, tmp_path / "m.pt")
        before = hashlib.sha256(path.read_bytes()).hexdigest()

        def swap_then_read(copy: Path, limits: Limits) -> Any:
            files.saved(files.network(1).state_dict(), path)
            return read_checkpoint(copy, limits)

        monkeypatch.setattr(load, "read_checkpoint", swap_then_read)
        model = loaded(path)
        assert model.provenance.sha256 == before != hashlib.sha256(path.read_bytes()).hexdigest()
        assert same(model.module, honest)

    @pytest.mark.parametrize("good", [True, False])
    def test_nothing_is_left_behind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
    ) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        path = files.saved(files.network().state_dict(), tmp_path / "m.pt")
        seen: list[Path] = []

        def spy(copy: Path, limits: Limits) -> Any:
            seen.append(copy)
            assert copy.parent.stat().st_mode & 0o077 == 0
            return read_checkpoint(copy, limits)

        monkeypatch.setattr(load, "read_checkpoint", spy)
        if good:
            loaded(path)
        else:
            with pytest.raises(InputError):
                loaded(path, "unaudit:mlp?widths=4-5-3")
        assert seen
        assert seen[0].is_relative_to(scratch)
        assert not list(scratch.iterdir())

    def test_no_room_for_the_copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = files.saved(files.network().state_dict(), tmp_path / "m.pt")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(InputError, match="set TMPDIR"):
            loaded(path)

    def test_a_link_to_a_model_is_followed(self, tmp_path: Path) -> None:
        path = files.saved(files.network().state_dict(), tmp_path / "m.pt")
        (tmp_path / "link.pt").symlink_to(path)
        assert loaded(tmp_path / "link.pt").digest == loaded(path).digest


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(file_bytes=1000), "larger than 1,000 B"),
        (Limits(parameters=50), "holds 51 numbers"),
        (Limits(tensors=3), "more than 3 tensors"),
        (Limits(members=3), "more than 3 zip members"),
        (Limits(opcodes=20), "more than 20 instructions"),
        (Limits(dimensions=1), "2 axes"),
        (Limits(index_bytes=300), "too large to be checked|zip members"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, says: str) -> None:
    path = files.saved(files.network().state_dict(), tmp_path / "m.pt")
    with pytest.raises(UnsafeModelError, match=says):
        load_model(str(path), arch=ARCH, limits=limits)


@pytest.mark.parametrize("version", ["2.9.1+cu128", "1.13.0", "unknown"])
def test_an_old_torch_does_not_unpickle(version: str) -> None:
    with pytest.raises(UsageError, match=r"install torch >= 2\.10"):
        require_torch(version)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0a0+git123"])
def test_a_newer_torch_does(version: str) -> None:
    require_torch(version)
