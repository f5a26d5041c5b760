"""K networks of one structure that compute as one: every weight has a leading dimension K.

Shapes: K networks, B candidates, F features, E edges, O operations, L genes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from search_spaces.edge_cell import EDGES, ZERO

Parameters: TypeAlias = dict[str, Tensor]
Shapes: TypeAlias = dict[str, tuple[int, ...]]


class Encoder(Protocol):
    """Candidates' features by K networks."""

    @property
    def num_features(self) -> int:
        """F."""

    def shapes(self) -> Shapes:
        """Shape of each parameter of one network."""

    def __call__(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Features (K, B, F)."""


def initial_parameters(shapes: Shapes, num: int, generator: torch.Generator) -> Parameters:
    """K sets, (K, *shape) each: weights uniform within 1/sqrt(inputs), biases zero, embeddings standard normal."""
    made: Parameters = {}
    for name, shape in shapes.items():
        size = (num, *shape)
        if name.endswith("bias"):
            made[name] = torch.zeros(size)
        elif name.endswith("embedding"):
            made[name] = torch.randn(size, generator=generator)
        else:
            bound = 1 / sqrt(prod(shape[:-1]))
            made[name] = (2 * torch.rand(size, generator=generator) - 1) * bound
    return made


@dataclass(frozen=True)
class Gates:
    """GATES (Ning et al. 2020, arXiv 2004.01899) on a cell of operations on edges: information flows along the edges,
    and the operation of an edge is a soft gate on it.

    Inputs (B, E): operations of the cell's six edges. Node 0 has a learned embedding; a layer gives node t
    h'_t = relu(Σ_s sigmoid(op_st A) ⊙ (h_s W) + b) + h_t, without h_t where the widths differ; features are those of
    the output node. What does not depend on the candidate, node 0 above all, is computed once for all of them.
    Deviation: an edge that carries nothing is no edge, instead of one with a gate of its own.
    """

    num_operations: int
    embedding: int = 48
    hidden: int = 96
    width: int = 128
    num_layers: int = 5

    @property
    def num_features(self) -> int:
        return self.width

    def shapes(self) -> Shapes:
        made: Shapes = {
            "operation_embedding": (self.num_operations, self.embedding),
            "input_embedding": (1, self.embedding),
            "input.weight": (self.embedding, self.hidden),
        }
        for layer in range(self.num_layers):
            made[f"layer{layer}.weight"] = (self.width if layer else self.hidden, self.width)
            made[f"layer{layer}.gate_weight"] = (self.embedding, self.width)
            made[f"layer{layer}.bias"] = (1, self.width)
        return made

    def __call__(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        is_edge_BE1 = (inputs != ZERO).unsqueeze(-1).float()
        nodes: list[Tensor | None] = [
            parameters["input_embedding"] @ parameters["input.weight"],
            None,
            None,
            None,
        ]
        for layer in range(self.num_layers):
            is_last = layer == self.num_layers - 1
            nodes = self._layer(
                parameters, layer, nodes, inputs, is_edge_BE1, (3,) if is_last else (0, 1, 2, 3)
            )
        output = nodes[3]
        assert output is not None
        return output

    def _layer(
        self,
        parameters: Mapping[str, Tensor],
        layer: int,
        nodes: Sequence[Tensor | None],
        inputs_BE: Tensor,
        is_edge_BE1: Tensor,
        targets: Sequence[int],
    ) -> list[Tensor | None]:
        """The nodes of the next layer; `None` is a node that nothing has reached, node 0 has no B (K, 1, F)."""
        weight, bias = parameters[f"layer{layer}.weight"], parameters[f"layer{layer}.bias"]
        gates_KOF = (parameters["operation_embedding"] @ parameters[f"layer{layer}.gate_weight"]).sigmoid()
        carried = [None if node is None else node @ weight for node in nodes[:3]]
        made: list[Tensor | None] = [None] * 4
        for target in targets:
            total = bias
            for edge, (source, end) in enumerate(EDGES):
                flow = carried[source] if end == target else None
                if flow is not None:
                    gate_KBF = gates_KOF[:, inputs_BE[:, edge]] * is_edge_BE1[:, edge]
                    total = total + gate_KBF * flow
            before = nodes[target]
            made[target] = total.relu() if before is None or layer == 0 else total.relu() + before
        return made


@dataclass(frozen=True)
class Lstm:
    """A single-layer LSTM over the genes; features are its last hidden state.

    Inputs (B, L): the genes; equal values of different genes share an embedding.
    """

    num_tokens: int
    embedding: int = 100
    hidden: int = 100

    @property
    def num_features(self) -> int:
        return self.hidden

    def shapes(self) -> Shapes:
        return {
            "token_embedding": (self.num_tokens, self.embedding),
            "input.weight": (self.embedding, 4 * self.hidden),
            "state.weight": (self.hidden, 4 * self.hidden),
            "bias": (1, 4 * self.hidden),
        }

    def __call__(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        by_token_KTF = parameters["token_embedding"] @ parameters["input.weight"] + parameters["bias"]
        num_networks = by_token_KTF.shape[0]
        state = by_token_KTF.new_zeros(num_networks, inputs.shape[0], self.hidden)
        cell = state
        for gene in range(inputs.shape[1]):
            gates = by_token_KTF[:, inputs[:, gene]] + state @ parameters["state.weight"]
            keep, admit, show, new = gates.split(self.hidden, dim=-1)
            cell = keep.sigmoid() * cell + admit.sigmoid() * new.tanh()
            state = show.sigmoid() * cell.tanh()
        return state


@dataclass(frozen=True)
class Mlp:
    """Layers of rectified units; inputs (B, D) are encodings."""

    num_inputs: int
    widths: tuple[int, ...] = (300, 128)

    @property
    def num_features(self) -> int:
        return self.widths[-1]

    def shapes(self) -> Shapes:
        return layer_shapes(self.num_inputs, self.widths)

    def __call__(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        x = inputs
        for layer in range(len(self.widths)):
            x = (x @ parameters[f"layer{layer}.weight"] + parameters[f"layer{layer}.bias"]).relu()
        return x


@dataclass(frozen=True)
class Head:
    """Rectified layers with dropout, then `num_outputs` linear outputs."""

    num_inputs: int
    num_outputs: int
    widths: tuple[int, ...]
    dropout: float

    def shapes(self) -> Shapes:
        return layer_shapes(self.num_inputs, (*self.widths, self.num_outputs))

    def __call__(
        self, parameters: Mapping[str, Tensor], features: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Outputs (K, B, num_outputs); with a generator units are dropped, the same ones in all K networks."""
        x = features
        for layer, width in enumerate(self.widths):
            x = torch.baddbmm(parameters[f"layer{layer}.bias"], x, parameters[f"layer{layer}.weight"]).relu()
            if generator is not None and self.dropout > 0:
                kept = torch.rand(x.shape[1], width, generator=generator) >= self.dropout
                x = x * (kept / (1 - self.dropout))
        last = len(self.widths)
        return torch.baddbmm(parameters[f"layer{last}.bias"], x, parameters[f"layer{last}.weight"])


@dataclass
class Networks:
    """K encoders, each with a head."""

    encoder: Encoder
    head: Head
    encoder_parameters: Parameters
    head_parameters: Parameters

    @classmethod
    def made(cls, encoder: Encoder, head: Head, num: int, generator: torch.Generator) -> Networks:
        return cls(
            encoder,
            head,
            initial_parameters(encoder.shapes(), num, generator),
            initial_parameters(head.shapes(), num, generator),
        )

    def __call__(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Outputs (K, B, num_outputs)."""
        return self.head(self.head_parameters, self.encoder(self.encoder_parameters, inputs), generator)

    @property
    def parameters(self) -> Parameters:
        own = {f"encoder.{name}": value for name, value in self.encoder_parameters.items()}
        return own | {f"head.{name}": value for name, value in self.head_parameters.items()}

    @classmethod
    def of(cls, encoder: Encoder, head: Head, parameters: Mapping[str, Tensor]) -> Networks:
        """The networks of named parameters, copied."""
        parts: dict[str, Parameters] = {"encoder": {}, "head": {}}
        for name, value in parameters.items():
            part, _, own = name.partition(".")
            parts[part][own] = value.clone()
        return cls(encoder, head, parts["encoder"], parts["head"])


def layer_shapes(num_inputs: int, widths: Sequence[int]) -> Shapes:
    """Weights and biases of fully connected layers."""
    made: Shapes = {}
    for layer, width in enumerate(widths):
        made[f"layer{layer}.weight"] = (num_inputs, width)
        made[f"layer{layer}.bias"] = (1, width)
        num_inputs = width
    return made
