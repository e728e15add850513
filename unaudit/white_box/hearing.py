"""Hearing what networks compute inside, batch by batch: one row per example, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from unaudit.tokens import are_present
from unaudit.white_box.anatomy import FEATURES, Anatomy
from unaudit.white_box.tokens import Padding, Sink, first_window
from unaudit.white_box.trace import listening


class Hearing:
    """Hands over what the first pass after :meth:`meet` computes; later ones are not heard.

    So whatever else has to be run for a batch can be run while the network is listened to.
    """

    def __init__(
        self, network: nn.Module, anatomy: Anatomy | None, sinks: Mapping[str, Sink]
    ) -> None:
        """
        Args:
            network: that is listened to.
            anatomy: of it; None will do where nothing is to be heard.
            sinks: by layer or :data:`FEATURES`, who is given its rows, one per example.
        """
        self.whole = True
        """Whether all of the batch is looked at, and no text in its first window only."""
        self.outputs: dict[str, Sink] = {}
        """By module name, who is given its output."""
        self.inputs: dict[str, Sink] = {}
        """By module name, who is given its first argument."""
        self._network = network
        self._sinks = frozenset(sinks)
        self._awaited: set[str] = set()
        self._padding = Padding(frozenset() if anatomy is None else anatomy.tokenwise)
        # before padding: what is not awaited may have any shape
        layers = self._padding.around(
            {layer: sink for layer, sink in sinks.items() if layer != FEATURES}
        )
        self.outputs = {layer: self._once(layer, sink) for layer, sink in layers.items()}
        if FEATURES in sinks:
            assert anatomy is not None
            self._hear_features(anatomy, sinks[FEATURES])

    def meet(self, batch: Tensor) -> Tensor:
        """Take note of a batch, (n, …); returns what of it the network is to be given."""
        shown = first_window(self._network, batch)
        self.whole = shown is batch or not bool(are_present(batch[:, shown.shape[1] :]).any())
        self._padding.meet(shown)
        self._awaited = set(self._sinks)
        return shown

    def _hear_features(self, anatomy: Anatomy, sink: Sink) -> None:
        if anatomy.states is None:
            self.inputs[anatomy.head] = self._once(FEATURES, lambda given: sink(given.flatten(1)))
            return
        pool = self._once(FEATURES, self._padding.pooled(sink))
        # the states may be asked for themselves
        beside = self.outputs.get(anatomy.states)

        def hear(states: Tensor) -> None:
            pool(states)
            if beside is not None:
                beside(states)

        self.outputs[anatomy.states] = hear

    def _once(self, name: str, sink: Sink) -> Sink:
        def take(values: Tensor) -> None:
            if name in self._awaited:
                self._awaited.discard(name)
                sink(values)

        return take


@contextmanager
def hearing(
    network: nn.Module, anatomy: Anatomy | None, sinks: Mapping[str, Sink]
) -> Iterator[Hearing]:
    """Listen to a network while it runs on batches, of each of which ``meet`` is told first.

    Args:
        network, anatomy, sinks: see :class:`Hearing`.
    """
    heard = Hearing(network, anatomy, sinks)
    with listening(network, heard.outputs, heard.inputs):
        yield heard
