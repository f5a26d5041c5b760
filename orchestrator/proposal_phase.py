"""The first phase of an evaluation: which individuals, and what the workers measure of candidates to choose them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from across.orchestrator.engine import Engine
from across.orchestrator.state import Proposal, SearchState
from across.orchestrator.strategies.base import ScreeningStrategy
from across.search_spaces.base import Genotype
from across.workers.base import Purpose, SignalResult


def propose(engine: Engine, commit_number: int, state: SearchState) -> list[Proposal]:
    """The next generation: survivors and new individuals; the first one begins with what the config gives it."""
    strategy, rng = engine.strategy, engine.rng(state.generation, Purpose.PROPOSALS)
    num = strategy.num_new(state)
    if isinstance(strategy, ScreeningStrategy):
        considered = strategy.consider(state, rng)
        genotypes = [genotype for genotype, _ in considered]
        measured = measure_signals(engine, commit_number, genotypes, state.weights_version)
        proposals = strategy.choose(state, rng, num, considered, measured)
    else:
        proposals = strategy.ask(state, rng, num)
    return _begin_with(engine.initial_genotypes, proposals) if state.generation == 0 else proposals


def measure_signals(
    engine: Engine, commit_number: int, genotypes: Sequence[Genotype], version: int
) -> dict[Genotype, dict[str, float]]:
    """Low-fidelity signals at one version of the weights; of a genotype that failed there are none."""
    units = engine.problem.signal_units(genotypes, version)
    spooled = engine.run.spooled(commit_number)
    results = {key: result for key, result in spooled.items() if isinstance(result, SignalResult)}
    missing = [unit for unit in units if unit.key not in results]
    if missing:
        engine.progress.phase("measuring signals", len(missing))
        for result in engine.compute(missing):
            assert isinstance(result, SignalResult)
            engine.run.spool(commit_number, [result])
            results[result.key] = result
    failures = [failure for unit in units if (failure := results[unit.key].failure)]
    if failures:
        engine.progress.message(
            f"no signals of {len(failures)} of {len(units)} candidates: they count as unknown ({failures[0]})"
        )
    return {unit.genotype: results[unit.key].signals for unit in units}


def _begin_with(genotypes: Sequence[Genotype], proposals: Sequence[Proposal]) -> list[Proposal]:
    """The first generation with as many of its genotypes replaced, the given ones first."""
    own = {each.genotype: each for each in proposals}
    others = [each.genotype for each in proposals if each.genotype not in genotypes]
    chosen = [*genotypes, *others][: len(proposals)]
    known = [own.get(genotype, Proposal(0, genotype)) for genotype in chosen]
    return [
        replace(
            each,
            genotype=one.genotype,
            forecast=one.forecast,
            signals=one.signals,
            signal_scores=one.signal_scores,
        )
        for each, one in zip(proposals, known, strict=True)
    ]
