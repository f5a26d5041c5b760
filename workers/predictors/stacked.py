"""K networks of one structure as one: every parameter has a leading dimension K, every layer is one batched product.

A network is an encoder of candidates and a head; the K networks share nothing. All parameters of all networks are one
tensor (K, P), a network a row, so that an optimizer's step is one kernel, and some of the networks are some rows.

Encoders are asked for features of candidates by `inputs` (k, B, I), where k is K, or 1 for the same B candidates in
all networks.

Shapes: K networks, P parameters of one, B candidates, I inputs of one, F features, O operations, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod, sqrt
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

Parameters: TypeAlias = Mapping[str, Tensor]
"""By name, (K, *shape)."""


class Drawn(NamedTuple):
    """How a parameter begins: uniform within ± `bound`, or of the standard normal distribution without one."""

    shape: tuple[int, ...]
    bound: float | None = None


class Encoder(Protocol):
    """Makes features of candidates."""

    @property
    def num_features(self) -> int:
        """F."""

    def parameters(self) -> dict[str, Drawn]:
        """Those of one network."""

    def __call__(self, parameters: Parameters, inputs_kBI: Tensor) -> Tensor:
        """Features (K, B, F), or (1, B, F) where they depend on no parameter."""


@dataclass(frozen=True)
class Network:
    """An encoder with a head of rectified layers, `widths` wide, and `num_outputs` linear outputs."""

    encoder: Encoder
    widths: tuple[int, ...]
    num_outputs: int = 1

    @cached_property
    def parameters(self) -> dict[str, Drawn]:
        """Those of one network, in the order of its row."""
        sizes = (self.encoder.num_features, *self.widths, self.num_outputs)
        return {**self.encoder.parameters(), **linear_layers("head", sizes)}

    @cached_property
    def size(self) -> int:
        """P."""
        return sum(prod(drawn.shape) for drawn in self.parameters.values())

    def draw(self, generator: torch.Generator) -> Tensor:
        """New parameters (P,) of one network."""
        parts = []
        for shape, bound in self.parameters.values():
            if bound is None:
                parts.append(torch.randn(prod(shape), generator=generator))
            else:
                parts.append((2 * torch.rand(prod(shape), generator=generator) - 1) * bound)
        return torch.cat(parts)

    def named(self, rows_KP: Tensor) -> dict[str, Tensor]:
        """Each parameter (K, *shape), as a differentiable view."""
        parts = rows_KP.split([prod(drawn.shape) for drawn in self.parameters.values()], dim=1)
        return {
            name: part.unflatten(1, drawn.shape)
            for (name, drawn), part in zip(self.parameters.items(), parts, strict=True)
        }

    def scaled(self, rows_KP: Tensor, factors_K: Tensor) -> Tensor:
        """Networks (K, P) whose outputs are `factors_K` times as large."""
        num_last = sum(
            prod(self.parameters[f"head.{len(self.widths)}.{part}"].shape) for part in ("weight", "bias")
        )
        scaled_KP = rows_KP.detach().clone()
        scaled_KP[:, -num_last:] *= factors_K[:, None]
        return scaled_KP

    def draw_kept(self, num_candidates: int, dropout: float, generator: torch.Generator) -> list[Tensor]:
        """For each layer of the head, 0 for units (B, F) that are dropped, a factor above 1 for those that are not."""
        if dropout == 0:
            return []
        return [
            (torch.rand(num_candidates, width, generator=generator) >= dropout).float() / (1 - dropout)
            for width in self.widths
        ]

    def __call__(self, rows_KP: Tensor, inputs_kBI: Tensor, kept: Sequence[Tensor] = ()) -> Tensor:
        """Outputs (K, B, num_outputs); `kept` are the units of `draw_kept`, without which none is dropped."""
        parameters = self.named(rows_KP)
        x = self.encoder(parameters, inputs_kBI)
        for layer in range(len(self.widths)):
            x = linear(parameters, f"head.{layer}", x).relu_()
            if kept:
                x = x * kept[layer]
        return linear(parameters, f"head.{len(self.widths)}", x)


@dataclass(frozen=True)
class Ensemble:
    """Experts and what weighs them."""

    expert: Network
    gate: Network | None
    """None: `gate_parameters` are K logits, the same for every candidate."""
    expert_parameters: Tensor
    """(K, P)."""
    gate_parameters: Tensor
    """(1, parameters of the gate), or (K,)."""

    @property
    def learned(self) -> list[Tensor]:
        """What step 2 trains: a single expert has nothing to be weighed against."""
        is_single = len(self.expert_parameters) == 1
        return [self.expert_parameters] if is_single else [self.expert_parameters, self.gate_parameters]

    def with_learned(self, learned: Sequence[Tensor]) -> Ensemble:
        """The same with other values of what is `learned`."""
        return replace(
            self, expert_parameters=learned[0], gate_parameters=[*learned, self.gate_parameters][1]
        )

    def scores(self, inputs_BI: Tensor, kept: Sequence[Sequence[Tensor]] = ((), ())) -> tuple[Tensor, Tensor]:
        """Experts' scores and their weights, (K, B) each; `kept` are units of the experts' and of the gate's head."""
        scores_KB = self.expert(self.expert_parameters, inputs_BI[None], kept[0])[..., 0]
        if len(scores_KB) == 1:
            return scores_KB, torch.ones_like(scores_KB)
        if self.gate is None:
            return scores_KB, self.gate_parameters.softmax(0)[:, None].expand_as(scores_KB)
        logits_BK = self.gate(self.gate_parameters, inputs_BI[None], kept[1])[0]
        return scores_KB, logits_BK.softmax(-1).T


def linear(parameters: Parameters, name: str, x_KBF: Tensor) -> Tensor:
    """A fully connected layer."""
    weight = parameters[f"{name}.weight"]
    return torch.baddbmm(parameters[f"{name}.bias"], x_KBF.expand(len(weight), -1, -1), weight)


def linear_layers(name: str, sizes: Sequence[int]) -> dict[str, Drawn]:
    """Weights and biases of fully connected layers, as PyTorch draws them."""
    made = {}
    for layer, (num_inputs, num_outputs) in enumerate(pairwise(sizes)):
        bound = 1 / sqrt(num_inputs)
        made[f"{name}.{layer}.weight"] = Drawn((num_inputs, num_outputs), bound)
        made[f"{name}.{layer}.bias"] = Drawn((1, num_outputs), bound)
    return made


def take_rows(table_KRF: Tensor, rows_kB: Tensor) -> Tensor:
    """Rows of each network's table, (K, B, F)."""
    num_networks, num_rows, _ = table_KRF.shape
    if len(rows_kB) == 1:
        return table_KRF.index_select(1, rows_kB[0])
    rows_KB = rows_kB + torch.arange(num_networks).unsqueeze(1) * num_rows
    return table_KRF.flatten(0, 1).index_select(0, rows_KB.flatten()).view(*rows_KB.shape, -1)


@dataclass(frozen=True)
class GatesEncoder:
    """GATES on a cell of six edges between four nodes: Ning et al. 2020, "A Generic Graph-Based Neural Architecture
    Encoding Scheme for Predictor-Based NAS" (arXiv 2004.01899), for operations on edges.

    Information flows from the input node: a layer carries h W along each edge and gates it by what the edge's
    operation is, sigmoid(embedding A + b); a node sums what arrives, the input node keeps what it has. Rectified
    between layers; features are the output node's. An edge with operation 0 carries nothing. Inputs: the six genes.

    Nodes with edges keep nothing of their own, so an inner node of the last layers depends on the genes of the edges
    before it and no more: node 1 has one state an operation, node 2 one a triple of operations. These few are
    computed, not the nodes of every candidate, and only in the layers from which they reach the features.
    """

    num_operations: int
    embedding_size: int = 48
    hidden_size: int = 96
    num_features: int = 128
    num_layers: int = 5
    """At least 3."""

    def parameters(self) -> dict[str, Drawn]:
        made = {
            "input_embedding": Drawn((1, self.embedding_size)),
            "operation_embedding": Drawn((self.num_operations - 1, self.embedding_size)),
            **linear_layers("hidden", (self.embedding_size, self.hidden_size)),
        }
        for layer in range(self.num_layers):
            num_inputs = self.num_features if layer else self.hidden_size
            made[f"flow.{layer}"] = Drawn((num_inputs, self.num_features), 1 / sqrt(self.num_features))
            if layer >= self.num_layers - 3:
                gate = linear_layers("gate", (self.embedding_size, self.num_features))
                made |= {name.replace("0", str(layer)): drawn for name, drawn in gate.items()}
        return made

    def __call__(self, parameters: Parameters, inputs_kBI: Tensor) -> Tensor:
        last, num = self.num_layers - 1, self.num_operations
        node0_K1F = linear(parameters, "hidden.0", parameters["input_embedding"])
        for layer in range(last - 2):
            node0_K1F = (node0_K1F @ parameters[f"flow.{layer}"]).relu()
        flow0_K1F = node0_K1F @ parameters[f"flow.{last - 2}"]
        node1_KOF = (self._gates(parameters, last - 2) * flow0_K1F).relu()
        node0_K1F = flow0_K1F.relu()

        gates_KOF = self._gates(parameters, last - 1)
        flow_KRF = torch.cat([node0_K1F, node1_KOF], dim=1) @ parameters[f"flow.{last - 1}"]
        flow0_K1F, flow1_KOF = flow_KRF[:, :1], flow_KRF[:, 1:]
        first_KOF = gates_KOF * flow0_K1F
        second_KOOF = gates_KOF[:, None] * flow1_KOF[:, :, None]
        node1_KOF = first_KOF.relu()
        node2_KRF = (first_KOF[:, None, :, None] + second_KOOF[:, :, None]).relu_().flatten(1, 3)
        nodes_KRF = torch.cat([flow0_K1F.relu(), node1_KOF, node2_KRF], dim=1)

        gates_KOF = self._gates(parameters, last)
        flow_KRF = nodes_KRF @ parameters[f"flow.{last}"]
        flow0_K1F, flow1_KOF, flow2_KRF = flow_KRF.split([1, num, num**3], dim=1)
        direct_KOF = gates_KOF * flow0_K1F
        by_node1_KOOF = gates_KOF[:, None] * flow1_KOF[:, :, None]
        both_KRF = (direct_KOF[:, None, :, None] + by_node1_KOOF[:, :, None]).flatten(1, 3)
        a, b, c, d, e, f = inputs_kBI.unbind(-1)
        from_node2_KBF = take_rows(gates_KOF, f) * take_rows(flow2_KRF, (a * num + b) * num + c)
        return take_rows(both_KRF, (a * num + d) * num + e) + from_node2_KBF

    def _gates(self, parameters: Parameters, layer: int) -> Tensor:
        """How much each operation lets through, (K, O, F)."""
        gates = linear(parameters, f"gate.{layer}", parameters["operation_embedding"]).sigmoid()
        return torch.cat([torch.zeros_like(gates[:, :1]), gates], dim=1)


@dataclass(frozen=True)
class LstmEncoder:
    """One layer of long short-term memory; features are its last state. Inputs: tokens, -1 after the end."""

    num_tokens: int
    embedding_size: int = 100
    num_features: int = 100

    def parameters(self) -> dict[str, Drawn]:
        size, bound = self.num_features, 1 / sqrt(self.num_features)
        return {
            "token_embedding": Drawn((self.num_tokens, self.embedding_size)),
            "input.weight": Drawn((self.embedding_size, 4 * size), bound),
            "input.bias": Drawn((1, 4 * size), bound),
            "state.weight": Drawn((size, 4 * size), bound),
        }

    def __call__(self, parameters: Parameters, inputs_kBI: Tensor) -> Tensor:
        table_KTF = linear(parameters, "input", parameters["token_embedding"])
        state_KBF = table_KTF.new_zeros(len(table_KTF), inputs_kBI.shape[1], self.num_features)
        memory_KBF = state_KBF
        for tokens_kB in inputs_kBI.unbind(-1):
            arriving = take_rows(table_KTF, tokens_kB.clamp_min(0))
            gates = torch.baddbmm(arriving, state_KBF, parameters["state.weight"])
            admit, keep, new, show = gates.chunk(4, dim=-1)
            memory = keep.sigmoid() * memory_KBF + admit.sigmoid() * new.tanh()
            state = show.sigmoid() * memory.tanh()
            is_on = (tokens_kB >= 0).unsqueeze(-1)
            memory_KBF = torch.where(is_on, memory, memory_KBF)
            state_KBF = torch.where(is_on, state, state_KBF)
        return state_KBF


@dataclass(frozen=True)
class MlpEncoder:
    """One rectified layer. Inputs: an encoding."""

    num_inputs: int
    num_features: int = 128

    def parameters(self) -> dict[str, Drawn]:
        return linear_layers("encoding", (self.num_inputs, self.num_features))

    def __call__(self, parameters: Parameters, inputs_kBI: Tensor) -> Tensor:
        return linear(parameters, "encoding.0", inputs_kBI).relu()
