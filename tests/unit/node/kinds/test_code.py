import pytest

from cluster.errors import Invalid
from cluster.registry.entry import Entry
from node.kinds import code_package, commands
from node.kinds.code import made_of
from node.lua.dialect import transform


def test_a_package_holds_transformed_source_and_what_may_be_required() -> None:
    source = "local n: number = 1\nreturn {go = function() return n end}"
    data = {"source": source, "method": "go", "modules": ["json"], "imports": {"l": "lib", "j": ":json"}}
    assert code_package(Entry("app:p", "process.lua", {}, data), 7) == {
        b"id": b"app:p",
        b"kind": b"process.lua",
        b"source": transform(source, "app:p").encode(),
        b"method": b"go",
        b"modules": [b"json"],
        b"imports": {b"l": b"app:lib", b"j": b":json"},
        b"version": 7,
    }


def test_a_library_has_no_method_and_a_function_defaults_to_main() -> None:
    assert code_package(Entry("app:l", "library.lua", {}, {"source": "return 1"}), 0)[b"method"] == b""
    assert code_package(Entry("app:f", "function.lua", {}, {"source": "return 1"}), 0)[b"method"] == b"main"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("process.host", {}),
        ("process.lua", {}),
        ("process.lua", {"source": "x ="}),
        ("process.lua", {"source": "x", "y": 1}),
    ],
)
def test_what_is_no_sound_code_gives_no_package(kind: str, data: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        code_package(Entry("app:x", kind, {}, data), 0)


def test_what_code_is_made_of_is_found_through_libraries_of_libraries() -> None:
    def code(name: str, **imports: str) -> Entry:
        return Entry(f"app:{name}", "library.lua", {}, {"source": "return 1", "imports": imports})

    entries = {each.id: each for each in (code("a", b="b", j=":json"), code("b", c="c", gone="gone"), code("c", b="b"))}
    assert made_of("app:a", entries.get) == {"app:a", "app:b", "app:c"}
    assert made_of("app:c", entries.get) == {"app:b", "app:c"}, "a circle ends"
    assert made_of("app:gone", entries.get) == frozenset()


def test_commands_are_listed_by_name_with_their_entries() -> None:
    def entry(name: str, command: object, kind: str = "process.lua") -> Entry:
        return Entry(f"app:{name}", kind, {"command": command})

    found = commands(
        [
            entry("z", {"name": "zap", "short": "Zap it", "main": True}),
            entry("a", {"name": "act", "use_case": "test"}),
            entry("broken", {"name": ""}),
            entry("f", {"name": "function"}, "function.lua"),
            Entry("app:plain", "process.lua"),
        ]
    )
    assert [(each.name, each.entry, each.short, each.main, each.use_case) for each in found] == [
        ("act", "app:a", "", False, "test"),
        ("zap", "app:z", "Zap it", True, "run"),
    ]
