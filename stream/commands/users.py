"""``prefstream explain``, ``forget`` and ``pseudonym``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from stream.commands.common import CommandFailed, broker_errors, one_line, settings_of

if TYPE_CHECKING:
    from stream.settings import Settings
    from stream.traces import Trace

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
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the effect, or only ask for it.")
    ] = True,
    gone: Annotated[
        bool,
        typer.Option("--gone", help="Wait until older values have been compacted away, too."),
    ] = False,
    key: Annotated[
        str, typer.Option(metavar="ID", help="Erase whoever has a pseudonym under this key.")
    ] = "",
    as_is: AsIs = False,
) -> None:
    """Erase a user, wait until it has taken effect, and say topic by topic what is left.

    With keys of pseudonyms in the settings, the user's pseudonyms under all of them. Exits 1 when
    what is waited for is not so after the timeout (is a worker running?).
    """
    if bool(user) == bool(key):
        raise CommandFailed("name a USER, or a key of pseudonyms with '--key'", 2)
    if gone and (key or not wait):
        raise CommandFailed("'--gone' waits, and for a USER", 2)
    if key and not wait:
        raise CommandFailed("'--key' waits: whoever is left is found by looking again", 2)
    settings = settings_of()
    if key:
        _forget_key(settings, key, timeout)
        return
    names = [user] if as_is else names_of(settings, user)
    if not wait:
        from stream.forget import send_tombstones

        with broker_errors(settings):
            asyncio.run(send_tombstones(settings, [name.encode() for name in names]))
        typer.echo(f"tombstones for {user} are written to users: nothing is proven")
        return
    _forget(settings, user, names, timeout, gone)


def _forget(settings: Settings, user: str, names: list[str], timeout: float, gone: bool) -> None:
    from stream.forget import forget

    with broker_errors(settings):
        found = asyncio.run(forget(settings, names, timeout, gone))
    for one in found.left:
        typer.echo(f"{one.topic:<18} {_told(one)}")
    if not found.in_effect:
        held = _of(found.left, "held")
        raise CommandFailed(
            f"the tombstone is sent, but after {timeout:.0f} s no worker has said that {user} is "
            f"erased{held and f' (still in {held})'}: is one running?"
        )
    # A worker tells of it only once its store has let go.
    typer.echo(f"{'local store':<18} gone")
    if gone and (pending := _of(found.left, "pending", "held")):
        raise CommandFailed(
            f"{user} is forgotten, but after {timeout:.0f} s not compacted away in {pending}"
        )
    typer.echo(f"{user} is forgotten")


def _of(left: Iterable[Trace], *states: str) -> str:
    return ", ".join(one.topic for one in left if one.left in states)


def _told(trace: Trace) -> str:
    by = "no time that Kafka is told of" if trace.until_ms is None else _day(trace.until_ms)
    if trace.left == "held":
        return "still there"
    if trace.left == "gone":
        return "gone"
    if trace.left == "kept":
        return f"kept until {by} at the latest"
    older = f"{trace.n_values} older values" if trace.n_values else "nothing but it left"
    return f"tombstone written, {older}; compacted away by {by}"


def _day(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _forget_key(settings: Settings, key: str, timeout: float) -> None:
    from stream.forget import forget_key

    with broker_errors(settings):
        n_users, n_left = asyncio.run(forget_key(settings, key, timeout))
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
