"""The parts of a predictor-guided search.

- `acquisition`: which of what was predicted is worth an evaluation
- `candidates`: where genotypes to predict come from
- `experience`: what a predictor learns from: comparable scores of all evaluations
- `guide`: a predictor that is fitted to a search's state
- `knowledge`: what is known before the first evaluation
"""
