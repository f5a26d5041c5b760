"""The root of every error that a user can mend."""

from __future__ import annotations


class AcrossError(ValueError):
    """Something that a user can mend; says what, where, which value, and what to do next.

    Everything that Across raises on purpose is one: catch it around a search to tell a wrong setting, missing data or
    a cluster without room from a fault of the program. The command line prints its text and exits with 2, or with 1
    where the search can be resumed (`PoolError`).
    """
