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

from across.errors import AcrossError
from across.orchestrator.cli.interruption import exit_code
from across.orchestrator.worker_pool.errors import PoolError

STOPPED, BAD_INPUT = 1, 2

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def explained() -> Iterator[None]:
    """Around a command: end it with a message where it fails as expected."""
    try:
        yield
    except AcrossError as error:
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
    except AcrossError as error:
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


def _is_full_disk(error: AcrossError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_SPACE


def _say_how_to_resume(run_dir: Path) -> None:
    if (run_dir / "config.yaml").exists():
        click.echo(f"to resume: across resume {shlex.quote(str(run_dir))}", err=True)
    else:
        click.echo("nothing had begun; the same command starts anew", err=True)
