"""``prefstream``: the command line. Each command is thin; what it needs is imported when it runs,
so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from stream.commands import bench, data, evaluate, logs, models, serving, topics, train, users
from stream.commands.common import CommandFailed

app = typer.Typer(
    name="prefstream",
    help="Behaviour events in, explained recommendations and churn risk out, through Kafka.",
    epilog="Settings come from PREFSTREAM_* in the environment, a .env or a TOML file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command()(serving.demo)
app.command()(serving.broker)
app.command()(serving.worker)
app.command()(serving.pseudonymise)
app.add_typer(topics.topics, name="topics")
app.command()(logs.replay)
app.command()(logs.validate)
app.add_typer(data.dead_letters, name="dead-letters")
app.command()(users.explain)
app.command()(users.forget)
app.command()(users.pseudonym)
app.command()(data.schema)
app.command()(evaluate.evaluate)
app.add_typer(train.train, name="train")
app.add_typer(models.models, name="models")
app.add_typer(bench.bench, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from stream.core.kept import is_native

        fold = "native" if is_native() else "Python"
        typer.echo(f"prefstream {version('prefstream')} ({fold} fold)")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code. What a person can mend is said in one line."""
    try:
        return app(list(arguments), prog_name="prefstream", standalone_mode=False) or 0
    except TyperException as error:
        return _failed(error.format_message(), error.exit_code)
    except CommandFailed as error:
        return _failed(str(error), error.code)
    except (KeyboardInterrupt, Abort):
        return 130


def _failed(message: str, code: int) -> int:
    # Without any argument the help is the message.
    is_help = message.startswith("Usage:")
    typer.echo(message if is_help else f"prefstream: {' '.join(message.split())}", err=True)
    return code


def main() -> None:
    """The entry point of ``prefstream``."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
