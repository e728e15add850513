"""Networks of texts as networks of one tensor: token ids in, logits out.

The networks are those of transformers, built from a checked configuration. What is added here makes
them look like any other network: one argument, one tensor returned, padding that changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unaudit.errors import InputError, UnsafeModelError
from unaudit.loading.hugging_face_library import import_transformers
from unaudit.loading.limits import Limits
from unaudit.text import plain
from unaudit.tokens import are_present, longest

if TYPE_CHECKING:
    from unaudit.loading.hugging_face_config import Config

_RENAMED = (
    (re.compile(r"(?<=LayerNorm\.)gamma$"), "weight"),
    (re.compile(r"(?<=LayerNorm\.)beta$"), "bias"),
    (re.compile(r"\bembed_out(?=\.weight$)"), "lm_head"),
)
_COMPUTED = re.compile(r"(^|\.)((cross)?attention|attn)\.(masked_)?bias$|\brotary_emb\.inv_freq$")
"""Masks and frequencies, which networks compute themselves."""


class TokenNetwork(nn.Module):
    """What a class of transformers gets on top, so that it takes a tensor and gives one.

    Texts begin at the first place of a row; where they have ended it is padded (see
    :mod:`unaudit.tokens`). Columns in which every text has ended are not computed: a batch costs as
    much as its longest text.
    """

    config: Any

    def forward(self, ids: Tensor) -> Tensor:
        """(b, C) logits for token ids (b, t), padded."""
        present = are_present(ids)
        length = longest(present)
        ids, present = ids[:, :length].long(), present[:, :length]
        return self._logits(ids.masked_fill(~present, self.filler), present)

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw every weight anew, by the scheme of the network's own family.

        Args:
            generator: on the CPU.
        """
        seed = int(torch.randint(1 << 62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            make: Any = type(self)
            fresh: nn.Module = make(self.config)
        as_linear(fresh)
        self.load_state_dict(fresh.state_dict())

    @property
    def token_embedding(self) -> nn.Embedding:
        """Where token ids become vectors."""
        get: Any = self.get_input_embeddings
        found: nn.Embedding = get()
        return found

    @property
    def filler(self) -> int:
        """The id that the network itself knows as padding; its attention mask hides it."""
        return self.config.pad_token_id or 0

    def _logits(self, ids: Tensor, present: Tensor) -> Tensor:
        run: Any = super().forward
        logits: Tensor = run(input_ids=ids, attention_mask=present.long()).logits
        return logits


class LastTokenNetwork(TokenNetwork):
    """A network that classifies by what it makes of the last token.

    In transformers the head sees every token and one row of logits is kept; here it sees the token
    whose row that is, so that it has features.
    """

    def _logits(self, ids: Tensor, present: Tensor) -> Tensor:
        base, head = getattr(self, str(self.base_model_prefix)), self.get_submodule("score")
        hidden = base(input_ids=ids, attention_mask=present.long()).last_hidden_state
        counts = present
        if self.config.pad_token_id is not None:
            # as there: the last token that is no padding, also where a text itself ends with it
            counts = counts & (ids != self.config.pad_token_id)
        places = torch.arange(ids.shape[1], device=ids.device)
        last = (places * counts).argmax(dim=1)
        rows = torch.arange(len(ids), device=ids.device)
        logits: Tensor = head(hidden[rows, last])
        return logits


def build_network(config: Config, limits: Limits) -> TokenNetwork:
    """The network of a configuration, in eval mode, with random weights.

    Raises:
        InputError: transformers cannot build it.
        UnsafeModelError: it would have more weights than ``limits`` allow; none were allocated.
    """
    transformers = import_transformers()
    settings = _settings(transformers, config)
    kind = _class_of(config.network, config.last_token, config.causal)
    with torch.device("meta"):
        sizes = _attempt(lambda: kind(settings), config)
    tensors = [*sizes.parameters(), *sizes.buffers()]
    count = sum(tensor.numel() for tensor in tensors)
    if count > limits.parameters or len(tensors) > limits.tensors:
        raise UnsafeModelError(
            f"asks for a network of {count:,} numbers (config.json), more than the "
            f"{limits.parameters:,} that are built; check its sizes"
        )
    network: TokenNetwork = _attempt(lambda: kind(settings), config)
    as_linear(network)
    return network.float().eval()


def context_of(network: TokenNetwork) -> int | None:
    """Tokens that a network can take at most; None where it sets no bound."""
    most = getattr(network.config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    # a table with a place for padding counts positions from behind it, as in RoBERTa
    reserved = [
        layer.padding_idx + 1
        for name, layer in network.named_modules()
        if name.endswith("position_embeddings")
        and isinstance(layer, nn.Embedding)
        and layer.padding_idx is not None
    ]
    return most - max(reserved, default=0)


def as_linear(network: nn.Module) -> None:
    """Put linear layers where GPT-2 has its own transposed ones.

    They compute the same, and whatever knows linear layers knows them. In state dicts their weights
    stay transposed, as files of such networks have them.
    """
    for holder in list(network.modules()):
        for name, layer in list(holder.named_children()):
            if type(layer).__name__ != "Conv1D":
                continue
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            linear = nn.Linear(*weight.shape)
            with torch.no_grad():
                linear.weight.copy_(weight.T)
                linear.bias.copy_(bias)
            linear.register_state_dict_post_hook(_give_transposed)
            linear.register_load_state_dict_pre_hook(_take_transposed)
            setattr(holder, name, linear)


def is_transposed(layer: nn.Module) -> bool:
    """Whether a linear layer's weight is stored transposed in files."""
    return _give_transposed in layer._state_dict_hooks.values()


def are_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two weights are the same numbers, whatever their precision."""
    if one.shape != other.shape:
        return False
    kind = torch.promote_types(one.dtype, other.dtype)
    return torch.equal(one.to(kind), other.to(one.device, kind))


def fitting_names(
    network: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors under the names that the network has for them, and what of them it computes itself.

    Files of older versions hold tables of positions, masks and frequencies, call the weights of
    normalizations gamma and beta, and leave out what stands before the names of a body saved alone.
    """
    wanted = set(network.state_dict())
    computed = {name for name, _ in network.named_buffers()} - wanted
    found: dict[str, Tensor] = {}
    passed_over = []
    for name, tensor in tensors.items():
        own = name if name in wanted else _newer(name, wanted, network)
        if own in computed or (own not in wanted and _COMPUTED.search(own)):
            passed_over.append(f"buffer {plain(own)}")
        elif own in found:
            raise InputError(f"holds '{plain(own)}' under two names; save it again")
        else:
            found[own] = tensor
    return found, tuple(passed_over)


def _newer(name: str, wanted: set[str], network: nn.Module) -> str:
    """What a network now calls a weight that it has under no such name."""
    for pattern, new in _RENAMED:
        name = pattern.sub(new, name)
    whole = f"{getattr(network, 'base_model_prefix', '')}.{name}"
    return whole if whole in wanted and name not in wanted else name


def _settings(transformers: Any, config: Config) -> Any:
    """The configuration as transformers wants it."""
    values = dict(config.values)
    values["use_cache"] = False  # of no use for whole texts, and costs memory
    if not config.causal:
        names = dict(enumerate(config.labels))
        values["id2label"] = names
        values["label2id"] = {name: index for index, name in names.items()}
    return _attempt(lambda: getattr(transformers, config.settings)(**values), config)


def _attempt(build: Any, config: Config) -> Any:
    try:
        return build()
    except Exception as error:  # whatever a constructor makes of numbers that do not fit together
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"config.json does not make a {plain(config.network)}: {plain(lines[-1], 160)}; "
            "check its sizes"
        ) from None


@cache
def _class_of(name: str, last_token: bool, causal: bool) -> Any:
    """A class of transformers as a :class:`TokenNetwork`."""
    from unaudit.loading.hugging_face_causal import CausalNetwork  # which builds on this module

    own: type[TokenNetwork] = LastTokenNetwork if last_token else TokenNetwork
    base = getattr(import_transformers(), name)
    return type(name, (CausalNetwork if causal else own, base), {"__module__": __name__})


def _give_transposed(
    layer: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    weight = state[f"{prefix}weight"]
    state[f"{prefix}weight"] = weight.T


def _take_transposed(layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    key = f"{prefix}weight"
    if key in state:
        state[key] = state[key].T
