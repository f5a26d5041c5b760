"""MLflow's mirror of the journal: the only place that knows of MLflow.

    tracker.py         Tracker, the one writer
    store.py           where the runs are kept, opened without a long wait
    commit_metrics.py  what a commit shows: scalars, the population as JSON
    config.py          the section `tracking`, free of MLflow

Nothing is exported here: reading a configuration must not load MLflow.
"""

import os

# Read when MLflow is imported: nobody is told that, or how, a search runs.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
