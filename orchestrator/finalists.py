"""Who is measured on test classes: the best of the last generations, by validation fitness alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from orchestrator.state import Commit, Evaluation, Proposal
from search_spaces.base import Genotype, SearchSpace


def choose_finalists(
    commits: Sequence[Commit], space: SearchSpace, *, num_finalists: int, num_generations: int
) -> list[Proposal]:
    """The genotypes of the best mean fitness over the last `num_generations`, the best first.

    A mean of fewer evaluations is shrunk towards the mean of all, as if one more evaluation had found that: a
    single lucky one does not beat a survivor that proved itself again and again. Equal functions count as one.
    """
    recent = [commit for commit in commits if commit.kind == "generation"][-num_generations:]
    evaluations = [each for commit in recent for each in commit.evaluations if each.fitness is not None]
    groups: dict[Genotype, list[Evaluation]] = {}
    for each in evaluations:
        groups.setdefault(space.canonical(each.proposal.genotype), []).append(each)
    if not groups:
        return []
    overall = fsum(each.rank_key for each in evaluations) / len(evaluations)

    def shrunk_mean(group: Sequence[Evaluation]) -> float:
        return (fsum(each.rank_key for each in group) + overall) / (len(group) + 1)

    ranked = sorted(groups.values(), key=lambda group: (-shrunk_mean(group), group[0].proposal.index))
    return [group[0].proposal for group in ranked[:num_finalists]]
