"""An application of modules, as a person makes and runs one: bundled and local ones, their values, what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.processes import wippy

pytestmark = pytest.mark.servers

APP = """\
namespace: app
entries:
  - name: hello
    kind: process.lua
    meta: {command: {name: hello}}
    imports: {phrases: acme.phrases:phrases}
    modules: [io]
    source: |
      local io, phrases = require("io"), require("phrases")
      return { main = function(name) io.print(phrases.greet(name), process.pid():match("@(.-)|")) return 0 end }
"""
PHRASES = """\
namespace: acme.phrases
entries:
  - {name: terminal, kind: ns.dependency, component: wippy/terminal, parameters: [{name: hide_logs, value: true}]}
  - {name: word, kind: ns.requirement, targets: [{entry: words, path: .greeting}]}
  - {name: words, kind: registry.entry, greeting: Hello}
  - name: phrases
    kind: library.lua
    modules: [registry]
    source: |
      local registry = require("registry")
      return { greet = function(name) return registry.get("acme.phrases:words").data.greeting .. ", " .. name end }
"""


def test_a_program_runs_on_the_bundled_terminal_with_a_library_of_a_local_module(tmp_path: Path) -> None:
    app, shelf = tmp_path / "app", tmp_path / "shelf" / "acme" / "phrases"
    (app / "src").mkdir(parents=True)
    shelf.mkdir(parents=True)
    (app / "src" / "_index.yaml").write_text(APP)
    (shelf / "_index.yaml").write_text(PHRASES)
    (shelf / "wippy.yaml").write_text("organization: acme\nmodule: phrases\nversion: 1.0.0\n")
    told = wippy(app, "add", "acme/phrases", "--from", str(tmp_path / "shelf"))
    assert "wippy/terminal 0.1.0: bundled with wippy" in told.stdout
    assert "- {name: word, value: ...}" in told.stderr

    ran = wippy(app, "run", "hello", "Ann")
    assert ran.stdout == "Hello, Ann\twippy.terminal:host\n"
    assert "acme.phrases:word: has no default and gets no value" in ran.stderr

    given = "name: phrases\nkind: ns.dependency\ncomponent: acme/phrases\nparameters: [{name: word, value: Good day}]\n"
    (app / "src" / "phrases.yaml").write_text(f"namespace: app\n{given}")
    ran = wippy(app, "run", "hello", "Ann")
    assert ran.stdout == "Good day, Ann\twippy.terminal:host\n"
    assert "has no default" not in ran.stderr
