"""The supernet's forward pass: features of one path on a batch of tasks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from across.search_spaces.architecture import Architecture, Edge, Zero, parameter_shapes
from across.search_spaces.operations import apply_layers

ParameterMap = Mapping[str, Tensor]


def fold_tasks(inputs: Tensor, memory_format: torch.memory_format) -> Tensor:
    """(T, B, C, H, W) -> (B, T·C, H, W).

    A single channel is contiguous in either layout, and only its strides tell PyTorch in which one to go on:
    `contiguous(memory_format=...)` would leave them alone, a new tensor has those of its layout.
    """
    folded = inputs.transpose(0, 1).flatten(1, 2)
    return torch.empty_like(folded, memory_format=memory_format).copy_(folded)


def features(
    architecture: Architecture,
    parameters: ParameterMap,
    inputs: Tensor,
    *,
    num_tasks: int,
    num_reference: int | None = None,
) -> Tensor:
    """Features (T, B, F) of folded images (B, T·C, H, W) on the path `architecture`.

    `parameters` maps every name of `architecture.parameters` to that shape, or to (T, *shape) where each task has
    its own weights. `num_reference`: take batch-norm statistics from the first images alone (None: from all).
    """
    values: list[Tensor | None] = [inputs]
    for index in range(1, len(architecture.nodes)):
        incoming = [
            _follow(
                edge,
                parameters,
                _present(values[edge.source]),
                num_tasks=num_tasks,
                num_reference=num_reference,
            )
            for edge in architecture.incoming(index)
            if _matters(edge, architecture, index)
        ]
        if architecture.nodes[index].join == "concatenate":
            tasks = [value.unflatten(1, (num_tasks, -1)) for value in incoming]
            values.append(torch.cat(tasks, dim=2).flatten(1, 2))
        else:
            values.append(sum(incoming[1:], start=incoming[0]))
        _release(values, architecture, index)
    return _readout(_present(values[-1]), architecture, num_tasks)


def _matters(edge: Edge, architecture: Architecture, target: int) -> bool:
    """Zeros are added to nothing, unless the node would have no summand at all."""
    if architecture.nodes[target].join == "concatenate" or not _is_zero(edge):
        return True
    return edge is architecture.incoming(target)[0] and all(map(_is_zero, architecture.incoming(target)))


def _is_zero(edge: Edge) -> bool:
    return any(isinstance(layer, Zero) for layer in edge.layers)


def _follow(
    edge: Edge, parameters: ParameterMap, x: Tensor, *, num_tasks: int, num_reference: int | None
) -> Tensor:
    own = [
        {name: parameters[f"{edge.name}.{position}.{name}"] for name in parameter_shapes(layer)}
        for position, layer in enumerate(edge.layers)
    ]
    return apply_layers(edge.layers, own, x, num_tasks=num_tasks, num_reference=num_reference)


def _present(value: Tensor | None) -> Tensor:
    assert value is not None, "a node was released before its last use"
    return value


def _release(values: list[Tensor | None], architecture: Architecture, computed: int) -> None:
    """Drop feature maps that no later edge reads: without gradients, memory is the widest cut of the graph."""
    for node in range(computed):
        if all(edge.source != node for edge in architecture.edges if edge.target > computed):
            values[node] = None


def _readout(x: Tensor, architecture: Architecture, num_tasks: int) -> Tensor:
    """(B, T·C, H, W) -> (T, B, F)."""
    by_image: Tensor
    if architecture.readout == "mean":
        by_image = x.mean(dim=(2, 3)).unflatten(1, (num_tasks, -1))
    else:
        by_image = x.contiguous().unflatten(1, (num_tasks, -1)).flatten(2)
    return by_image.transpose(0, 1)
