"""``prefstream explain``, ``forget`` and ``pseudonym``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.common import CommandFailed, broker_errors, one_line, settings_of

if TYPE_CHECKING:
    from stream.settings import Settings

User = Annotated[str, typer.Argument(metavar="USER", help="A user id.", show_default=False)]


AsIs = Annotated[
    bool, typer.Option("--as-is", help="USER is a pseudonym already, or there are none.")
]


def explain(user: User, as_is: AsIs = False) -> None:
    """Print what is known of a user, and why items were chosen.

    With keys of pseudonyms in the settings, of the pseudonym under the key in use.
    """
    from stream.core.user_rows import BadRow
    from stream.explain import explain, lines
    from stream.topic_names import full_name
    from stream.topics import USER_STATE

    settings = settings_of()
    name = user if as_is else names_of(settings, user)[0]
    with broker_errors(settings), one_line(BadRow):
        found = asyncio.run(explain(settings, full_name(settings, USER_STATE.name), name))
    for line in lines(found):
        typer.echo(line)


def forget(
    user: Annotated[str, typer.Argument(metavar="[USER]", help="A user id.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the effect.")] = 30.0,
    key: Annotated[
        str, typer.Option(metavar="ID", help="Erase whoever has a pseudonym under this key.")
    ] = "",
    as_is: AsIs = False,
) -> None:
    """Erase a user, and wait until it has taken effect.

    With keys of pseudonyms in the settings, the user's pseudonyms under all of them. Exits 1 when
    something of the user is still there after the timeout (is a worker running?).
    """
    from stream.topic_names import full_name
    from stream.topics import USER_STATE

    if bool(user) == bool(key):
        raise CommandFailed("name a USER, or a key of pseudonyms with '--key'", 2)
    settings = settings_of()
    changelog = full_name(settings, USER_STATE.name)
    if key:
        _forget_key(settings, changelog, key, timeout)
        return
    from stream.forget import forget

    left: list[str] = []
    for name in [user] if as_is else names_of(settings, user):
        with broker_errors(settings):
            left += asyncio.run(forget(settings, changelog, name, timeout))
    if left:
        raise CommandFailed(
            f"the tombstone is sent, but after {timeout:.0f} s {user} is still in "
            f"{', '.join(dict.fromkeys(left))}: is a worker running?"
        )
    typer.echo(f"{user} is forgotten")


def _forget_key(settings: Settings, changelog: str, key: str, timeout: float) -> None:
    from stream.forget import forget_key

    with broker_errors(settings):
        n_users, n_left = asyncio.run(forget_key(settings, changelog, key, timeout))
    if n_left:
        raise CommandFailed(
            f"{n_users} tombstones are sent, but after {timeout:.0f} s {n_left} users of key {key} "
            "are still there: is a worker running?"
        )
    typer.echo(f"{n_users} users of key {key} are forgotten")


def pseudonym(user: User) -> None:
    """Print the pseudonyms of a user, that under the key in use first."""
    settings = settings_of()
    if settings.pseudonym_key_file is None:
        raise CommandFailed("setting pseudonym_key_file: must name a file of keys", 2)
    for name in names_of(settings, user):
        typer.echo(name)


def names_of(settings: Settings, user: str) -> list[str]:
    """Return what a user is called in our topics: pseudonyms, or the id where there are no keys."""
    from stream.pseudonyms import BadKeys, Pseudonymiser

    if settings.pseudonym_key_file is None:
        return [user]
    with one_line(BadKeys):
        return Pseudonymiser.read(settings.pseudonym_key_file).all_of(user)
