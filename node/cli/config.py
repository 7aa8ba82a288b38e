"""Verbs of the operator overlay: config list, get, set, unset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, note, say, show, show_json
from node.cli.failures import Failed
from node.cli.gateway import FROM, AsJson, Listing, Timeout, json_argument, listing, seconds, text_argument

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.configuration import Configuration, Setting
    from cluster.registry.status import OverlayStatus

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="The id of the entry, e.g. app:limits")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the cluster applied or refused it")]


async def list_(client: Client, format: Listing = Format.TEXT, as_json: AsJson = False) -> None:
    """What lies over entries, and what became of it."""
    rows = [_row(setting) for setting in await (await _opened(client)).all()]
    columns = {"entry": "ENTRY", "value": "VALUE", "state": "STATE", "at": "AT", "reason": "REASON"}
    columns = {key: heading for key, heading in columns.items() if key != "reason" or any(row[key] for row in rows)}
    empty = "no configuration is laid over any entry"
    show(rows, columns, listing(format, as_json), empty=empty, whole=("entry",))


async def get(client: Client, entry: EntryId, format: Listing = Format.TEXT, as_json: AsJson = False) -> None:
    """The overlay of one entry."""
    setting = await (await _opened(client)).get(entry)
    if setting.raw is None:
        raise Failed(f"nothing is laid over {entry}; `wippy registry show {entry}` shows the entry itself")
    if listing(format, as_json) is Format.JSON:
        show_json(_row(setting))
        return
    say(setting.raw.decode("utf-8", "backslashreplace"))
    note(_remark(setting))


async def set_(
    client: Client,
    entry: EntryId,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="JSON|PATH=VALUE...", help=f"The whole overlay as JSON, or single values such as rate=5; {FROM}"
        ),
    ],
    wait: Wait = True,
    timeout: Timeout = "10s",
) -> None:
    """Change configuration: lay a mapping over an entry's data, on all nodes."""
    from cluster.configuration import ChangedMeanwhile

    if len(values) == 1:
        values = [text_argument(values[0])]
    configuration = await _opened(client)
    for _ in range(5):
        present = await configuration.get(entry)
        try:
            expected = None if _is_json(values) else present.mod_revision
            mod = await configuration.put(entry, _overlay(present, values), expected=expected)
        except ChangedMeanwhile:
            continue
        await _await_answer(configuration, entry, mod, mod, seconds(timeout) if wait else None)
        return
    raise Failed(f"config of {entry} is being changed by somebody else all the time; try again")


async def unset(
    client: Client,
    entry: EntryId,
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="Only this value; all of the overlay without")
    ] = None,
    wait: Wait = True,
    timeout: Timeout = "10s",
) -> None:
    """Take the overlay of an entry away: its base holds again."""
    configuration = await _opened(client)
    present = await configuration.get(entry)
    if present.raw is None:
        raise Failed(f"nothing is laid over {entry}; `wippy config list` shows what is")
    mapping = {} if path is None else _mapping(present)
    if path is not None and not _remove(mapping, path.split(".")):
        raise Failed(f"the overlay of {entry} has no {path}; it is {json.dumps(mapping)}")
    mod = await configuration.put(entry, mapping, expected=present.mod_revision) if mapping else 0
    revision = mod or await configuration.delete(entry)
    await _await_answer(configuration, entry, mod, revision, seconds(timeout) if wait else None)


async def _await_answer(
    configuration: Configuration, entry: str, mod: int, revision: int, timeout: float | None
) -> None:
    """Say what the cluster makes of a change; without ``timeout`` only that it was made."""
    if timeout is None:
        note(f"changed, not answered yet: `wippy config get {entry}` shows what becomes of it")
    else:
        _tell(entry, await configuration.answered(entry, mod, revision, timeout))


async def _opened(client: Client) -> Configuration:
    from cluster.configuration import Configuration

    await client.check()
    return Configuration(client.etcd, client.keys)


def _is_json(values: Sequence[str]) -> bool:
    return len(values) == 1 and values[0].lstrip().startswith("{")


def _overlay(present: Setting, values: Sequence[str]) -> dict[str, Any]:
    """The mapping to put: given as a whole, or the present one with single values changed."""
    if _is_json(values):
        mapping: dict[str, Any] = json_argument(values[0])
        return mapping
    mapping = _mapping(present)
    for text in values:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise Failed(
                f"""expected a JSON mapping such as '{{"rate": 5}}' or PATH=VALUE such as rate=5, got {text!r}""",
                code=2,
            )
        _place(mapping, path.split("."), _value(value))
    return mapping


def _mapping(present: Setting) -> dict[str, Any]:
    try:
        mapping = json.loads(present.raw or b"{}")
    except ValueError:
        mapping = None
    if not isinstance(mapping, dict):
        raise Failed(f"the overlay of {present.entry} is not JSON; give the whole of it as a JSON mapping instead")
    return mapping


def _place(mapping: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        below = mapping.setdefault(part, {})
        if not isinstance(below, dict):
            below = mapping[part] = {}
        mapping = below
    mapping[path[-1]] = value


def _remove(mapping: dict[str, Any], path: list[str]) -> bool:
    for part in path[:-1]:
        below = mapping.get(part)
        if not isinstance(below, dict):
            return False
        mapping = below
    return mapping.pop(path[-1], mapping) is not mapping


def _value(text: str) -> Any:
    """A value as people type it: JSON where it is JSON, else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _row(setting: Setting) -> dict[str, Any]:
    status = setting.status if setting.is_answered else None
    return {
        "entry": setting.entry,
        "value": (setting.raw or b"").decode("utf-8", "backslashreplace"),
        "state": "pending" if status is None else "applied" if _is_applied(status) else "refused",
        "at": f"v{status.version}" if status else None,
        "reason": status.reason if status else "",
        "version": status.version if status else None,
        "mod_revision": setting.mod_revision,
    }


def _is_applied(status: OverlayStatus) -> bool:
    from cluster.registry.status import Verdict

    return status.status is Verdict.APPLIED


def _remark(setting: Setting) -> str:
    match _row(setting):
        case {"state": "applied", "at": at}:
            return f"applied at {at}"
        case {"state": "refused", "at": at, "reason": reason}:
            return f"refused at {at}: {reason}"
    return "pending: no node has answered yet; is one ready? `wippy nodes` shows them"


def _tell(entry: str, status: OverlayStatus) -> None:
    """Say what became of a change. Raises Failed when it was refused."""
    if not _is_applied(status):
        raise Failed(
            f"refused: {entry}: {status.reason}; nothing in the registry changed; set it right, or take what was "
            f"refused away with `wippy config unset {entry}`"
        )
    print(f"applied: {entry} is at v{status.version}")
