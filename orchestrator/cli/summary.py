"""The numbers at the end of a search."""

from __future__ import annotations

from orchestrator.config.run_config import RunConfig, build_sources, build_space
from orchestrator.progress import SearchSummary
from orchestrator.search import SearchOutcome
from orchestrator.state import SearchState
from orchestrator.statistics import mean_and_interval
from search_spaces.base import Genotype, SearchSpace
from search_spaces.constrained import Constrained
from workers.objectives import OBJECTIVES


def summarize(outcome: SearchOutcome, config: RunConfig) -> SearchSummary | None:
    """What `outcome` comes to; None if it has no finalist. Sizes include the head of the first task source."""
    best = outcome.best
    if best is None:
        return None
    sources = build_sources(config)
    space = build_space(config, sources)
    spec = sources[0].spec
    genotype = best.proposal.genotype
    cost = Constrained(space, OBJECTIVES[spec.objective].num_outputs(spec)).cost(genotype)
    accuracy, interval = mean_and_interval(best.scores) if best.scores else (None, None)
    return SearchSummary(
        run_dir=outcome.run_dir,
        best_genotype=space.to_string(genotype),
        num_params=cost.num_params,
        flops=cost.flops,
        fitness=_last_fitness(outcome.state, space, genotype),
        fingerprint=outcome.fingerprint,
        test_accuracy=accuracy,
        test_interval=interval,
        num_test_tasks=len(best.scores),
        pictures=tuple(sorted((outcome.run_dir / "plots").glob("*.png"))),
    )


def _last_fitness(state: SearchState, space: SearchSpace, genotype: Genotype) -> float | None:
    """On validation tasks, at the newest weights that the genotype was evaluated with."""
    same = (
        each.fitness
        for each in reversed(state.history)
        if space.canonical(each.proposal.genotype) == space.canonical(genotype) and each.fitness is not None
    )
    return next(same, None)
