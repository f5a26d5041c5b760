"""MLflow's mirror of the journal: the only place that knows of MLflow.

    tracker.py         Tracker, the one writer
    commit_metrics.py  what a commit shows: scalars, the population as JSON
    config.py          the section `tracking`, free of MLflow

Nothing is exported here: reading a configuration must not load MLflow.
"""
