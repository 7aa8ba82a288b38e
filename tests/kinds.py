"""The reference page of the kinds of entries: fields from the models, one example each.

The examples are the entries of one application, which a test loads.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from node.kinds import KINDS
from node.kinds.lifecycle import Lifecycle
from node.kinds.service import Placement
from node.kinds.supervisor import Child, Template
from node.settings.describe import fields_of

HEAD = """# Kinds of entries

An application is a set of entries. Any `*.yaml` file below its source directory may hold some
([projects.md](projects.md) tells how files become entries):

```yaml
version: "1.0"
namespace: app

entries:
  - name: limits
    kind: registry.entry
    meta:
      comment: Jobs a worker takes per second
    rate: 2
```

The id of an entry is `namespace:name`, here `app:limits`; a reference without a namespace means the file's own. `meta`
is the application's, for any kind, and what the registry is searched by. Every other key belongs to the kind and is
described below; unknown ones are refused, with file and line, and so are references that lead nowhere. A text that
begins with `file://` stands for the file beside the YAML. `${env:NAME}` and `${env:NAME|default}` in a value stand for
a variable, not in code and documents. Durations are written `500ms`, `5s`, `1h30m`.

The examples of this page are the entries of one application.

"""

EXAMPLES = {
    "process.lua": """\
- name: greeter_process
  kind: process.lua
  source: file://greeter.lua
  modules: [logger]
  imports:
    texts: app:texts
""",
    "function.lua": """\
- name: double
  kind: function.lua
  source: |
    return { main = function(n) return 2 * n end }
""",
    "library.lua": """\
- name: texts
  kind: library.lua
  source: |
    return { greeting = "Hello" }
""",
    "process.host": """\
- name: processes
  kind: process.host
  host:
    workers: 2
    memory: 512MiB
    mailbox_size: 10000
  lifecycle:
    auto_start: true
""",
    "terminal.host": """\
- name: terminal
  kind: terminal.host
  hide_logs: true
  lifecycle:
    auto_start: true
""",
    "process.service": """\
- name: greeter
  kind: process.service
  process: greeter_process
  host: processes
  input: [Ada]
  placement:
    mode: cluster
    replicas: 2
  lifecycle:
    auto_start: true
    restart:
      initial_delay: 500ms
      max_attempts: 10
""",
    "process.supervisor": """\
- name: desk
  kind: process.supervisor
  strategy: rest_for_one
  children:
    - {id: greeter, process: greeter_process, host: processes, input: [Ada]}
    - {id: elsewhere, process: greeter_process, host: processes, node: any, shutdown: 2s}
    - {id: helpers, process: helpers}
  lifecycle:
    auto_start: true
- name: helpers
  kind: process.supervisor
  strategy: dynamic
  template: {process: greeter_process, host: processes, restart: transient}
""",
    "env.storage.memory": """\
- name: memory
  kind: env.storage.memory
""",
    "env.storage.os": """\
- name: machine
  kind: env.storage.os
""",
    "env.storage.static": """\
- name: fixed
  kind: env.storage.static
  values:
    REGION: north
""",
    "env.storage.file": """\
- name: file
  kind: env.storage.file
  file_path: data/settings.env
  auto_create: true
  file_mode: "0600"
""",
    "env.storage.router": """\
- name: layers
  kind: env.storage.router
  storages: [memory, machine, fixed]
""",
    "env.variable": """\
- name: log_level
  kind: env.variable
  variable: LOG_LEVEL
  storage: layers
  default: info
""",
    "store.memory": """\
- name: cache
  kind: store.memory
  max_size: 1000
""",
    "store.kv.raft": """\
- name: counts
  kind: store.kv.raft
  namespace: counter
""",
    "store.kv.crdt": """\
- name: sessions
  kind: store.kv.crdt
  namespace: sess
  durable: true
""",
    "pg.scope": """\
- name: groups
  kind: pg.scope
  max_members_per_group: 10000
""",
    "registry.entry": """\
- name: limits
  kind: registry.entry
  rate: 2
""",
    "ns.definition": """\
- name: module
  kind: ns.definition
  module: acme/shop
  readme: file://README.md
""",
    "ns.requirement": """\
- name: queue_size
  kind: ns.requirement
  default: 100
  targets:
    - {entry: limits, path: .queue_size}
""",
    "ns.dependency": """\
- name: jobs
  kind: ns.dependency
  component: acme/jobs
  version: "^1.0"
  parameters:
    - {name: size, value: 9}
""",
}
"""The smallest sensible entry of each kind."""

NOTES = {
    "process.lua": "`meta.command: {name: add, short: ...}` makes it a program that `wippy run add` starts.\n\n",
    "process.host": "Workers, limits and memory are explained in [limits.md](limits.md).\n\n",
    "process.supervisor": "[supervision.md](supervision.md) explains trees.\n\n",
    "registry.entry": "Its fields are its own; `wippy config set` changes them while everything runs, as it does\n"
    "those of entries of other kinds with `meta.overlay: true`.\n\n",
}

APART: dict[str, type[BaseModel]] = {
    "lifecycle": Lifecycle,
    "placement": Placement,
    "children": Child,
    "template": Template,
}
"""Blocks with a section of their own."""

UNUSED = frozenset({"pool", "security"})
"""Blocks that are accepted and have no effect: one line for each."""


def kinds_page() -> str:
    """Every kind, its fields and an example."""
    return HEAD + "\n".join([*(_kind(name) for name in KINDS), *(_block(name) for name in APART)])


def _kind(name: str) -> str:
    model = KINDS[name].model
    table = "" if model.free_form else _table(model)
    parts = [f"## {name}\n\n{sentence(model.__doc__)}\n\n", NOTES.get(name, "")]
    nothing = "" if model.free_form else "It has no fields.\n\n"
    parts += [f"{table}\n" if table else nothing, f"```yaml\n{EXAMPLES[name]}```\n"]
    return "".join(parts)


def _block(name: str) -> str:
    return f"## {name}\n\n{sentence(APART[name].__doc__)}\n\n{_table(APART[name])}"


def _table(model: type[BaseModel]) -> str:
    rows = "".join(_rows(model))
    return f"| field | default | |\n|--|--|--|\n{rows}" if rows else ""


def _rows(model: type[BaseModel]) -> Iterator[str]:
    for field in fields_of(model, whole={*APART, *_unused(model)}):
        default = "required" if field.required else f"`{field.default}`" if field.default else ""
        more = f" See [{field.path}](#{field.path})." if field.path in APART else ""
        yield f"| `{field.path}` | {default} | {sentence(field.text)}{more} |\n"


def _unused(model: type[BaseModel]) -> set[str]:
    return {name for name in UNUSED if name in model.model_fields and not model.model_fields[name].is_required()}


def sentence(text: str | None) -> str:
    """A docstring as it may stand in a table."""
    return " ".join((text or "").split()).replace("|", r"\|").replace("``", "`")
