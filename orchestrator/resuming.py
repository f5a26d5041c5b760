"""What a config and the run on disk must agree on before a search begins or goes on."""

from __future__ import annotations

from pathlib import Path

from orchestrator.config import ConfigError, RunConfig
from orchestrator.config.loading import changed_settings, parse_config
from orchestrator.finalists import choose_finalists
from orchestrator.run_directory import RunDirectory
from search_spaces.base import NOTATION_SHAPE, InvalidGenotypeError, SearchSpace
from workers.model import Model
from workers.outer_optimizer import MetaState


def take_initial_weights(run: RunDirectory, config: RunConfig, model: Model | None) -> None:
    """Put another run's last weights where the first generation looks for a checkpoint."""
    if model is None or config.initial_weights is None or run.commits() or run.load_checkpoint(0) is not None:
        return
    origin = RunDirectory.open(config.initial_weights)
    generations = [commit for commit in origin.commits() if commit.kind == "generation"]
    if not generations:
        raise ConfigError([f"initial_weights: {origin.path} has no generation yet: resume it first"])
    weights = origin.load_weights(generations[-1].number)["weights"]
    settings = parse_config(origin.settings(), origin=str(origin.path))
    layout = Model(settings.space.build(model.space.input_shape), model.specs, settings.inner_loop).index
    if list(layout.shapes.items()) != list(model.index.shapes.items()) or weights.size != model.index.size:
        raise ConfigError(
            [
                f"initial_weights: the weights of {origin.path} are of another model ({weights.size} values,"
                f" this one has {model.index.size}): give this run the same space, tasks and inner_loop"
            ]
        )
    run.save_checkpoint(0, 0, MetaState.start(weights).tensors(), {})


def take_initial_population(config: RunConfig, space: SearchSpace) -> RunConfig:
    """`config` with the genotypes that the first generation begins with, which are of `space`; raises `ConfigError`."""
    section = config.initial_population
    if section is None:
        return config
    genotypes, origin = section.genotypes, "initial_population.genotypes"
    if not genotypes and section.run is not None:
        genotypes, origin = (
            _best_genotypes(section.run, section.num_genotypes),
            f"initial_population: {section.run}",
        )
    try:
        for text in genotypes:
            space.from_string(text)
    except InvalidGenotypeError as error:
        raise ConfigError([f"{origin}: {error}"]) from error
    return config.model_copy(
        update={"initial_population": section.model_copy(update={"genotypes": genotypes})}
    )


def _best_genotypes(path: Path, num: int) -> tuple[str, ...]:
    """The strings of a run's best genotypes, the best first."""
    origin = RunDirectory.open(path)
    commits = origin.commits()
    settings = parse_config(origin.settings(), origin=str(origin.path))
    space = settings.space.build(NOTATION_SHAPE)
    best = choose_finalists(commits, space, num_finalists=num, num_generations=max(1, len(commits)))
    if not best:
        raise ConfigError([f"initial_population: {origin.path} has no generation yet: resume it first"])
    return tuple(space.to_string(proposal.genotype) for proposal in best)


def journal_changes(run: RunDirectory, started: RunConfig, config: RunConfig) -> None:
    """Note what differs from the config so far as a new segment."""
    changed = changed_settings(started, config)
    if "meta_learning.tasks_per_shard" in changed:
        run.clear_spool()  # other shards draw other paths: what was spooled belongs to other weights
    if changed:
        run.add_segment(len(run.commits()), changed)


def check_device(run: RunDirectory, config: RunConfig, device: str) -> None:
    """Raise `ConfigError` where the run would go on on another kind of device."""
    started_on = run.environment["device"]
    if device != started_on and not config.workers.allow_mixed_devices:
        raise ConfigError(
            [
                f"{run.path} was started on {started_on} and would go on on {device}, where results differ in"
                " their last bits; resume it on the former, or with --set workers.allow_mixed_devices=true"
            ]
        )
