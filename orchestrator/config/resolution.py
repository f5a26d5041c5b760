"""What a config leaves open, decided once: from then on a run computes the same, wherever it is resumed."""

from __future__ import annotations

from importlib.metadata import version
from platform import python_version

from across.orchestrator.config.run_config import RunConfig

TASKS_PER_CHUNK = {"cpu": 4, "cuda": 64}
"""Few enough for a CPU's caches; enough to fill a GPU with few-shot networks."""
_LIBRARIES = ("torch", "numpy", "ray", "mlflow", "pydantic", "safetensors")


def resolve(config: RunConfig, *, has_gpus: bool) -> RunConfig:
    """`config` with every automatic choice made. What bits depend on is never chosen later, nor by timing."""
    device = config.compute.device
    if device == "auto":
        device = "cuda" if has_gpus and config.workers.gpus_per_worker != 0 else "cpu"
    chunk = config.evaluation.tasks_per_chunk or TASKS_PER_CHUNK[device]
    optimizer = config.meta_learning.optimizer
    total_steps = optimizer.total_steps or max(1, config.num_outer_steps)
    return _with_choices(config, device, chunk, total_steps)


def resolve_as(config: RunConfig, started: RunConfig) -> RunConfig:
    """`config` with the automatic choices that `started`, the config of a run under way, was resolved to."""
    device = started.compute.device if config.compute.device == "auto" else config.compute.device
    chunk = config.evaluation.tasks_per_chunk or started.evaluation.tasks_per_chunk
    optimizer = config.meta_learning.optimizer
    total_steps = optimizer.total_steps or started.meta_learning.optimizer.total_steps
    wanted, known = config.initial_population, started.initial_population
    if wanted and known and wanted.run == known.run and not wanted.genotypes:
        known_genotypes = wanted.model_copy(update={"genotypes": known.genotypes})
        config = config.model_copy(update={"initial_population": known_genotypes})
    return _with_choices(config, device, chunk, total_steps)


def _with_choices(
    config: RunConfig, device: str, tasks_per_chunk: int | None, total_steps: int | None
) -> RunConfig:
    compute = config.compute.model_copy(update={"device": device})
    if config.table is not None:
        return config.model_copy(update={"compute": compute})
    optimizer = config.meta_learning.optimizer
    return config.model_copy(
        update={
            "compute": compute,
            "evaluation": config.evaluation.model_copy(update={"tasks_per_chunk": tasks_per_chunk}),
            "meta_learning": config.meta_learning.model_copy(
                update={"optimizer": optimizer.model_copy(update={"total_steps": total_steps})}
            ),
        }
    )


def describe_environment(device: str) -> dict[str, str]:
    """Versions of Python and the libraries, and the kind of device, as they are kept with a run."""
    versions = {name: version(name) for name in _LIBRARIES}
    return {"device": device, "python": python_version(), **versions}
