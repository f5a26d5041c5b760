"""The run directory: everything that a search is, durable, and readable by whoever comes later.

    config.yaml                 what was run, resolved; never changed after its creation
    journal/000012.json         one immutable file a commit
    journal/000012.settings.json    settings changed on resume, from that commit on
    weights/000012.safetensors  of the newest two commits that have weights
    spool/                      finished units and the checkpoint of the commit under way
    predictor/                  what a predictor learned before its first score, learned anew if missing
    earlier_runs.json           what a predictor knew from earlier runs
    plots/                      pictures, drawn anew at any time
    lock                        who runs the search now

A commit is there when its journal file is there. Its weights are written before, older weights and the spool
are removed after, so that a process may die between any two steps.
"""

from across.orchestrator.run_directory.directory import RunDirectory
from across.orchestrator.run_directory.durable_files import RunDirectoryError
from across.orchestrator.run_directory.journal import JournalConflictError, Segment, fingerprint
from across.orchestrator.run_directory.lock import RunInUseError
from across.orchestrator.run_directory.spool import Checkpoint

__all__ = [
    "Checkpoint",
    "JournalConflictError",
    "RunDirectory",
    "RunDirectoryError",
    "RunInUseError",
    "Segment",
    "fingerprint",
]
