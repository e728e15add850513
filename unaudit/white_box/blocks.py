"""The blocks of a network: which of its cuts a reader would call its layers.

A *block* is what the field calls so: a convolution or linear layer with the normalization,
activation and pooling behind it; a residual, dense or attention block as a whole; and where such
blocks come in several stages, a stage (IDI, table 8: "a group of residual layers in ResNet,
commonly referred to as stages, with four blocks in ResNet-18, or a transformer block in ViT").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from unaudit.white_box.trace import Call, Trace

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# their few weights rescale what a layer computed; they do not make a layer of their own
_ADJUSTMENTS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.PReLU,
)


def find_blocks(
    network: nn.Module,
    seen: Trace,
    cuts: frozenset[str],
    head: str,
    features: int,
    tokenwise: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Names of the blocks' outputs in order of execution, without what equals the features.

    Args:
        network: as it was traced.
        seen: one forward pass.
        cuts: modules that may be taken.
        head: name of the head.
        features: numbers that the head is given per example.
        tokenwise: in a network of texts, modules that give one row per token. Such a network has no
            stages, and what stands in a list of equal modules is a block.
    """
    finder = _Finder(network, seen, cuts, tokenwise)
    pieces = finder.chain() if tokenwise else _join_stages(finder.chain())
    named = [piece for piece in pieces if piece.names]
    if named and not finder.weights_between(named[-1].names[-1], head):
        last = named[-1]
        # only reshaping and pooling follow: what has the features' size is the features
        last.names = [name for name in last.names if finder.size(name) != features]
    return tuple(finder.largest(piece) for piece in named if piece.names)


@dataclass
class _Piece:
    """A link of the chain."""

    names: list[str]
    """Cuts in it, in order of execution; the last is its output. Empty if it is inside no cut."""
    layers: frozenset[str]
    """Modules in it with weights of their own, normalization aside."""
    parent: str
    """Name of the module that holds it."""

    @property
    def composite(self) -> bool:
        return len(self.layers) > 1


class _Finder:
    def __init__(
        self, network: nn.Module, seen: Trace, cuts: frozenset[str], tokenwise: frozenset[str]
    ) -> None:
        self.seen = seen
        self.cuts = cuts
        self.tokenwise = tokenwise & cuts
        self.modules = dict(network.named_modules())
        self.unopened = frozenset(self._unopened())

    def chain(self) -> list[_Piece]:
        """The network as pieces that run one after another."""
        pieces: list[_Piece] = []
        for name in self._links(""):
            own = [name] if name in self.cuts else []
            layers = frozenset(self._layers(name))
            if layers:
                pieces.append(_Piece(own, layers, name.rpartition(".")[0]))
            elif pieces and not pieces[-1].composite:
                pieces[-1].names += own
        return pieces

    def largest(self, piece: _Piece) -> str:
        """The output of a piece by the name of the largest module that holds no other layer."""
        name = piece.names[-1]
        port = self._call(name).port
        while parent := name.rpartition(".")[0]:
            fits = parent in self.cuts and self._call(parent).port == port
            if not fits or not piece.layers.issuperset(self._layers(parent)):
                break
            name = parent
        return name

    def size(self, name: str) -> int:
        """Numbers per example."""
        shape = self._call(name).shape
        assert shape is not None
        count = 1
        for length in shape[1:]:
            count *= length
        return count

    def weights_between(self, name: str, head: str) -> bool:
        """Whether a module with weights runs after ``name`` and before the head."""
        begin, end = self._call(name).end, self._call(head).start
        return any(
            begin < call.start < end
            for other, calls in self.seen.calls.items()
            for call in calls
            if next(self.modules[other].parameters(recurse=False), None) is not None
        )

    def _links(self, name: str) -> Iterator[str]:
        """Modules below ``name`` in order of execution, opened until they are blocks or leaves."""
        for child in sorted(self._children(name), key=lambda child: self._call(child).start):
            if self._opens(child):
                yield from self._links(child)
            else:
                yield child

    def _children(self, name: str) -> Iterator[str]:
        """Children that run; one that does not run itself stands for its own children."""
        for key, module in self.modules[name].named_children():
            child = f"{name}.{key}" if name else key
            if self.modules.get(child) is not module:  # shared, known under another name
                continue
            if child in self.seen.calls:
                yield child
            else:
                yield from self._children(child)

    def _opens(self, name: str) -> bool:
        kind = type(self.modules[name])
        if kind in _CONTAINERS:
            return any(True for _ in self._cuts_inside(name))
        return kind not in self.unopened and not self._is_unit(name)

    def _unopened(self) -> Iterator[type[nn.Module]]:
        """Kinds of modules that are blocks wherever they occur.

        Those that occur repeatedly, unless they hold blocks themselves. Whether a shortcut is there
        or not must not decide (it depends on the stride in MobileNet and EfficientNet), so one that
        cannot be opened speaks for all of its kind.
        """
        kinds = Counter(type(self.modules[name]) for name in self.seen.calls)
        for kind, times in kinds.items():
            if times < 2 or kind in _CONTAINERS:
                continue
            names = [name for name in self.seen.calls if type(self.modules[name]) is kind]
            listed = all(name in self.tokenwise and self._is_listed(name) for name in names)
            unit = any(map(self._is_unit, names))
            if listed or unit or not any(map(self._holds_blocks, names)):
                yield kind

    def _is_unit(self, name: str) -> bool:
        """Whether nothing inside a module is a cut, apart from what ends where it ends."""
        port = self._call(name).port
        return all(self._call(inner).port == port for inner in self._cuts_inside(name))

    def _is_listed(self, name: str) -> bool:
        return isinstance(self.modules[name.rpartition(".")[0]], nn.ModuleList)

    def _holds_blocks(self, name: str) -> bool:
        return any(len(set(self._layers(inner))) > 1 for inner in self._cuts_inside(name))

    def _cuts_inside(self, name: str) -> Iterator[str]:
        return (inner for inner in self._inside(name) if inner in self.cuts and inner != name)

    def _layers(self, name: str) -> Iterator[str]:
        for inner in self._inside(name):
            module = self.modules[inner]
            if isinstance(module, _ADJUSTMENTS) or inner not in self.seen.calls:
                continue
            # networks of texts bring normalizations of their own, which have no matrices
            least = 2 if self.tokenwise else 0
            if any(weight.ndim >= least for weight in module.parameters(recurse=False)):
                yield inner

    def _inside(self, name: str) -> Iterable[str]:
        """``name`` and everything below."""
        inside = (inner for inner, _ in self.modules[name].named_modules(prefix=name))
        return (inner for inner in inside if inner in self.modules)

    def _call(self, name: str) -> Call:
        return self.seen.calls[name][0]


def _join_stages(pieces: list[_Piece]) -> list[_Piece]:
    """Make one piece of each stage, where composite pieces stand in two or more modules."""
    held: dict[str, list[_Piece]] = {}
    for piece in pieces:
        held.setdefault(piece.parent, []).append(piece)
    stages = {
        parent
        for parent, inside in held.items()
        if parent and all(piece.composite for piece in inside)
    }
    if len(stages) < 2:
        return pieces
    joined: list[_Piece] = []
    for piece in pieces:
        if joined and piece.parent in stages and joined[-1].parent == piece.parent:
            layers = joined[-1].layers | piece.layers
            joined[-1] = _Piece(piece.names or joined[-1].names, layers, piece.parent)
        else:
            joined.append(piece)
    return joined
