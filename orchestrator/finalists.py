"""Who is measured on test classes: the best of the last generations, by validation fitness alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from across.orchestrator.state import Commit, Evaluation, Proposal
from across.search_spaces.base import Genotype, SearchSpace


def choose_finalists(
    commits: Sequence[Commit], space: SearchSpace, *, num_finalists: int, num_generations: int
) -> list[Proposal]:
    """The genotypes of the best fitness over the last `num_generations`, the best first.

    Fitness counts relative to the mean of all that met the same weights and tasks, because both change from
    generation to generation. A genotype's mean is shrunk towards that of an average one, as if one more evaluation
    had found it to be that: a single lucky evaluation does not beat a survivor that proved itself again and again.
    Equal functions count as one, and so do evaluations at the same weights, which are no news.
    """
    recent = [commit for commit in commits if commit.kind == "generation"][-num_generations:]
    by_weights: dict[int, dict[Genotype, Evaluation]] = {}
    for each in (each for commit in recent for each in commit.evaluations if each.fitness is not None):
        met = by_weights.setdefault(each.weights_version, {})
        met.setdefault(space.canonical(each.proposal.genotype), each)
    proposals: dict[Genotype, Proposal] = {}
    gains: dict[Genotype, list[float]] = {}
    for met in by_weights.values():
        mean = fsum(each.rank_key for each in met.values()) / len(met)
        for genotype, each in met.items():
            proposals.setdefault(genotype, each.proposal)
            gains.setdefault(genotype, []).append(each.rank_key - mean)

    def rank(genotype: Genotype) -> tuple[float, int]:
        shrunk_mean = fsum(gains[genotype]) / (len(gains[genotype]) + 1)
        return -shrunk_mean, proposals[genotype].index

    return [proposals[genotype] for genotype in sorted(gains, key=rank)[:num_finalists]]
