"""What the command line says and how it ends: data on stdout, everything for people on stderr, exit codes.

0    done
1    a photo failed (the others are done), or the model, the backend or the installation
2    the command line itself is wrong
130  Ctrl-C
141  the reader of stdout went away
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import typer
import typer.core
from boothsam.runtime.errors import BackendUnavailable, BoothsamError, OptionError, PromptError

FAILED, USAGE, BROKEN_PIPE = 1, 2, 141
DEBUG = "BOOTHSAM_DEBUG"
T = TypeVar("T")

# Typer 0.2x brings its own copy of click: its base class of usage errors is reached through a name that both have.
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class Failed(Exception):
    """The command has said what went wrong; only the exit code is left."""


class Group(typer.core.TyperGroup):
    """The command group, with every way to fail turned into `error:` and `hint:` lines and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            result = super().main(*args, **extra | {"standalone_mode": False})
        except _UsageError as error:
            context = getattr(error, "ctx", None)
            message = error.format_message() if hasattr(error, "format_message") else str(error)
            say_error(message.rstrip("."), f"{context.command_path if context else 'boothsam'} --help")
            sys.exit(USAGE)
        except typer.Abort:
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # Python flushes stdout once more on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except Failed:
            raise typer.Exit(FAILED) from None
        except (typer.Exit, typer.Abort, _UsageError):
            raise
        except Exception as error:
            say_exception(error)
            raise typer.Exit(USAGE if isinstance(error, OptionError | PromptError) else FAILED) from None


def _paint(text: str, colour: str) -> str:
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=colour, bold=True)


def say(text: str) -> None:
    """A line for people, on stderr."""
    typer.echo(text, err=True)


def say_error(message: str, hint: str | None = None) -> None:
    """`error:` and `hint:` on stderr."""
    say(f"{_paint('error:', 'red')} {message}")
    if hint:
        say(f"{_paint('hint:', 'cyan')} {hint}")


def say_warning(message: str, hint: str | None = None) -> None:
    """`warning:` and `hint:` on stderr."""
    say(f"{_paint('warning:', 'yellow')} {message}")
    if hint:
        say(f"{_paint('hint:', 'cyan')} {hint}")


def explain(error: Exception) -> tuple[str, str | None]:
    """Message and hint of any exception; an unexpected one tells how to report it."""
    if isinstance(error, BoothsamError):
        return error.message, error.hint
    if isinstance(error, MemoryError):
        return "not enough memory", "use a smaller photo, or close other programs"
    if isinstance(error, OSError) and error.strerror:
        where = f"{shown(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}", "look at the path, its permissions and the free disk space"
    return (
        f"unexpected {type(error).__name__}: {error}",
        f"this is a bug: report it with the output of `boothsam doctor --report` ({DEBUG}=1 shows the traceback)",
    )


def say_exception(error: Exception, where: str | None = None) -> None:
    """One error, its hint and, with BOOTHSAM_DEBUG=1, its traceback; `where` comes first if the message lacks it."""
    if os.environ.get(DEBUG):
        say("".join(traceback.format_exception(error)).rstrip())
    message, hint = explain(error)
    say_error(f"{where}: {message}" if where and where not in message else message, hint)


def shown(path: str | Path) -> str:
    """A path for people: the home folder as ~."""
    text, home = str(path), str(Path.home())
    return "~" + text[len(home) :] if home != "/" and (text == home or text.startswith(home + os.sep)) else text


def without_home(text: str) -> str:
    """A text with the home folder as ~ wherever it occurs, so that it names nobody."""
    home = str(Path.home())
    return text if home == "/" else re.sub(re.escape(home) + r"(?![\w.-])", "~", text)


def print_json(record: Any) -> None:
    """One JSON document, on one line of stdout, so that many of them are JSON lines."""
    typer.echo(json.dumps(record, allow_nan=False))


class Progress:
    """One line on stderr, when there are several items and somebody is watching; `clear` it before saying something."""

    def __init__(self, count: int, label: str) -> None:
        self.count = count
        self.label = label
        self.watched = count > 1 and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._start = perf_counter()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each announced with the time that is left at the speed so far."""
        for done, item in enumerate(items):
            if self.watched:
                left = (perf_counter() - self._start) / done * (self.count - done) if done else 0
                text = f"{self.label} {done + 1}/{self.count}" + (f", {left:.0f} s left" if done else "")
                self._write(text)
            yield item
        self.clear()

    def clear(self) -> None:
        """Empty the line."""
        if self.watched:
            self._write("")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def need_extra(extra: str, purpose: str) -> Iterator[None]:
    """Around an import: a package that is missing becomes one error with the pip command that mends it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "boothsam"):
            raise
        raise BackendUnavailable(
            f"{purpose} needs {package}, which is not installed", hint=f"pip install 'boothsam[{extra}]'"
        ) from None


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def set_up_logging(verbosity: int) -> None:
    """Warnings on stderr; -v adds what was chosen and why, -vv the details."""
    logger = logging.getLogger("boothsam")
    if not any(isinstance(handler, _Echo) for handler in logger.handlers):
        logger.addHandler(_Echo())
    # Pillow's remarks on damaged metadata, with lines of its source: what matters of them is said by whoever reads it.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
