"""What a config and the run on disk must agree on before a search begins or goes on."""

from __future__ import annotations

from pathlib import Path

from across.orchestrator.config import ConfigError, RunConfig
from across.orchestrator.config.loading import changed_settings, parse_config
from across.orchestrator.finalists import choose_finalists
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.strategies.guidance.earlier_searches import Scores
from across.orchestrator.strategies.guidance.experience import experience
from across.orchestrator.strategies.predictor_guided import PredictorGuidedConfig
from across.search_spaces.base import NOTATION_SHAPE, InvalidGenotypeError, SearchSpace
from across.workers.model import Model
from across.workers.outer_optimizer import MetaState


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


def read_earlier_runs(config: RunConfig, space: SearchSpace) -> dict[str, dict[str, float]]:
    """What the strategy's earlier runs have found, by run and genotype of `space`; raises `ConfigError`."""
    paths = config.strategy.earlier_runs if isinstance(config.strategy, PredictorGuidedConfig) else ()
    return {path.name: _found_by(path, space) for path in paths}


def take_earlier_runs(run: RunDirectory, config: RunConfig, space: SearchSpace) -> dict[str, Scores]:
    """What they had found when `run` began, the first time copied into it."""
    if not isinstance(config.strategy, PredictorGuidedConfig) or not config.strategy.earlier_runs:
        return {}
    if not run.earlier_scores.exists() and not run.commits():
        run.earlier_scores.save(read_earlier_runs(config, space))
    return {
        name: {space.from_string(genotype): score for genotype, score in scores.items()}
        for name, scores in run.earlier_scores.load().items()
    }


def _found_by(path: Path, space: SearchSpace) -> dict[str, float]:
    """Fitness without the effect of the weights, by the string of the canonical genotype, of `space`."""
    origin = RunDirectory.open(path)
    generations = [commit for commit in origin.commits() if commit.kind == "generation"]
    if not generations:
        raise ConfigError([f"strategy.earlier_runs: {origin.path} has no generation yet: resume it first"])
    own_space = parse_config(origin.settings(), origin=str(origin.path)).space.build(NOTATION_SHAPE)
    history = [evaluation for commit in generations for evaluation in commit.evaluations]
    known = experience(history, own_space, max_functions=len(history))
    found = {}
    try:
        for evaluation, score in zip(known.evaluations, known.scores, strict=True):
            genotype = space.from_string(own_space.to_string(evaluation.proposal.genotype))
            found[space.to_string(space.canonical(genotype))] = float(score)
    except InvalidGenotypeError as error:
        raise ConfigError([f"strategy.earlier_runs: {origin.path}: {error}"]) from error
    return found


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
    if any(key == "meta_learning.tasks_per_shard" or key.startswith("strategy.signals.") for key in changed):
        run.clear_spool()  # it belongs to other weights, for other shards draw other paths, or to other signals
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
