"""``prefstream explain`` and ``prefstream forget``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from stream.commands.common import CommandFailed, broker_errors, one_line, settings_of

User = Annotated[str, typer.Argument(metavar="USER", help="A user id.", show_default=False)]


def explain(user: User) -> None:
    """Print what is known of a user, and why items were chosen."""
    from stream.core.user_rows import BadRow
    from stream.explain import explain, lines
    from stream.topics import USER_STATE

    settings = settings_of()
    with broker_errors(settings), one_line(BadRow):
        found = asyncio.run(explain(settings, settings.topic_prefix + USER_STATE.name, user))
    for line in lines(found):
        typer.echo(line)


def forget(
    user: User,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the effect.")] = 30.0,
) -> None:
    """Erase a user, and wait until it has taken effect.

    Exits 1 when something of the user is still there after the timeout (is a worker running?).
    """
    from stream.forget import forget
    from stream.topics import USER_STATE

    settings = settings_of()
    changelog = settings.topic_prefix + USER_STATE.name
    with broker_errors(settings):
        left = asyncio.run(forget(settings, changelog, user, timeout))
    if left:
        raise CommandFailed(
            f"the tombstone is sent, but after {timeout:.0f} s {user} is still in "
            f"{', '.join(left)}: is a worker running?"
        )
    typer.echo(f"{user} is forgotten")
