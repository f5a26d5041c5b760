"""The parts of a predictor-guided search.

- `acquisition`: which of what was predicted is worth an evaluation
- `candidates`: where genotypes to predict come from
- `earlier_searches`: what searches that came before say of genotypes that they never met
- `experience`: what a predictor learns from: comparable scores of all evaluations
- `guide`: a predictor that is fitted to a search's state
- `knowledge`: what is known before the first evaluation
- `threads`: how many of them a predictor computes with
"""
