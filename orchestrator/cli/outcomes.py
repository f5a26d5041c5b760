"""How a command ends: a message and an exit code for all that is expected, a traceback for what is not.

0    done
1    stopped, and can be resumed
2    something that the user can mend
130  Ctrl-C; 143 SIGTERM
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from orchestrator.cli.interruption import exit_code
from orchestrator.worker_pool.errors import PoolError

STOPPED, BAD_INPUT = 1, 2

_PACKAGES = frozenset({"search_spaces", "workers", "orchestrator"})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def explained() -> Iterator[None]:
    """Around a command: end it with a message where it fails as expected."""
    try:
        yield
    except ValueError as error:
        if not _is_ours(error):
            raise
        complain(str(error))
        raise SystemExit(BAD_INPUT) from error
    except KeyboardInterrupt as error:
        complain("interrupted")
        raise SystemExit(exit_code()) from error


@contextmanager
def resumable(run_dir: Path) -> Iterator[None]:
    """Around a search: where it stops but can go on, say how."""
    try:
        yield
    except ValueError as error:
        if not isinstance(error, PoolError) and not _is_full_disk(error):
            raise
        complain(str(error))
        _say_how_to_resume(run_dir)
        raise SystemExit(STOPPED) from error
    except KeyboardInterrupt as error:
        complain("interrupted")
        _say_how_to_resume(run_dir)
        raise SystemExit(exit_code()) from error


def complain(message: str) -> None:
    """The lines of `message` on standard error."""
    click.echo("error: " + message.replace("\n", "\n       "), err=True)


def _is_ours(error: ValueError) -> bool:
    """Whether the error is of a class of this project, made to be read by users."""
    return type(error).__module__.partition(".")[0] in _PACKAGES


def _is_full_disk(error: ValueError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_SPACE


def _say_how_to_resume(run_dir: Path) -> None:
    if (run_dir / "config.yaml").exists():
        click.echo(f"to resume: across resume {shlex.quote(str(run_dir))}", err=True)
    else:
        click.echo("nothing had begun; the same command starts anew", err=True)
