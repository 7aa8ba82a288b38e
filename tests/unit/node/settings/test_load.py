import re
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.errors import Invalid
from node.settings import Settings, default_node_name, load_settings
from node.settings.describe import describe


def load(directory: Path, text: str = "", *sets: str, **environ: str) -> Settings:
    if text:
        (directory / ".wippy.yaml").write_text(text)
    return load_settings(directory, sets=sets, environ=environ)


def refused(directory: Path, text: str = "", *sets: str, **environ: str) -> list[str]:
    with pytest.raises(Invalid) as raised:
        load(directory, text, *sets, **environ)
    return [str(problem) for problem in raised.value.problems]


class TestDefaults:
    def test_nothing_set_means_embedded_servers_and_a_name_of_its_own(self, tmp_path: Path) -> None:
        settings = load(tmp_path)
        assert settings.embedded
        assert settings.cluster.name == "wippy"
        assert settings.cluster.lease_ttl == timedelta(seconds=5)
        assert settings.node
        assert settings.warnings == ()

    def test_the_made_up_name_depends_on_machine_and_directory(self, tmp_path: Path) -> None:
        name = default_node_name(tmp_path, "host.example")
        assert name.startswith("host-")
        assert name == default_node_name(tmp_path, "host.example")
        assert name != default_node_name(tmp_path / "other", "host.example")
        assert name != default_node_name(tmp_path, "host.elsewhere")

    def test_settings_are_frozen(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load(tmp_path).node = "x"  # type: ignore[misc]


class TestPrecedence:
    def test_set_beats_environment_beats_file(self, tmp_path: Path) -> None:
        text = "cluster: {name: file}\nrelay: {node_name: file}\nlogger: {level: warn}\n"
        settings = load(tmp_path, text, "cluster.name=option", WIPPY_CLUSTER="environ", WIPPY_NODE="environ")
        assert (settings.cluster.name, settings.node, settings.logger.level) == ("option", "environ", "warn")

    def test_later_files_override_values_and_keep_the_rest(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(
            "logger: {encoding: json, level: warn}\ncluster: {labels: {zone: a, rack: r}}\n"
        )
        (tmp_path / "b.yaml").write_text("logger: {level: debug}\ncluster: {labels: {zone: b}}\n")
        settings = load_settings(tmp_path, files=[tmp_path / "a.yaml", tmp_path / "b.yaml"], environ={})
        assert (settings.logger.encoding, settings.logger.level) == ("json", "debug")
        assert settings.cluster.labels == {"zone": "b", "rack": "r"}

    def test_the_most_specific_variable_names_the_node(self, tmp_path: Path) -> None:
        environ = {"WIPPY_NODE_ID": "c", "WIPPY_RELAY_NODE_NAME": "b", "WIPPY_NODE": "a"}
        assert load(tmp_path, **environ).node == "a"
        del environ["WIPPY_NODE"]
        assert load(tmp_path, **environ).node == "b"

    def test_an_empty_variable_sets_nothing(self, tmp_path: Path) -> None:
        assert load(tmp_path, WIPPY_CLUSTER="").cluster.name == "wippy"

    @pytest.mark.parametrize(
        ("option", "value"),
        [("true", True), ("7", 7), ("-1.5", -1.5), ("text", "text"), ("1.2.3", "1.2.3"), ("", ""), ("a=b", "a=b")],
    )
    def test_options_take_the_type_they_look_like(self, tmp_path: Path, option: str, value: object) -> None:
        assert load(tmp_path, "", f"override.app:x:data.port={option}").override == {"app:x:data.port": value}


class TestServers:
    def test_servers_are_a_list_a_text_or_a_map(self, tmp_path: Path) -> None:
        text = "cluster:\n  nats: nats://a:4222, nats://b:4222\n  etcd: [http://c:2379]\n"
        cluster = load(tmp_path, text, WIPPY_NATS_USER="u", WIPPY_NATS_PASSWORD="p").cluster
        assert cluster.nats.urls == ["nats://a:4222", "nats://b:4222"]
        assert cluster.etcd.urls == ["http://c:2379"]
        assert (cluster.nats.user, cluster.nats.password) == ("u", "p")

    def test_an_option_replaces_the_servers_and_keeps_the_login(self, tmp_path: Path) -> None:
        text = "cluster:\n  nats: {urls: [nats://a:1], user: u, password: p}\n  etcd: http://c:2379\n"
        nats = load(tmp_path, text, "cluster.nats=nats://b:2").cluster.nats
        assert (nats.urls, nats.user) == (["nats://b:2"], "u")

    def test_one_without_the_other_is_refused(self, tmp_path: Path) -> None:
        assert any("etcd is not; give both" in line for line in refused(tmp_path, WIPPY_NATS="nats://a:4222"))

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            ("nats: {urls: ['http://a:1']}", "a URL of scheme 'http'"),
            ("nats: {urls: ['nats://']}", "expected nats://host:port"),
            ("nats: {user: u}", "user and password together"),
            ("nats: {user: u, password: p, token: t}", "one way to log in, got user and token"),
            ("etcd: {password: p}", "user and password together"),
            ("etcd: {tls: {ca: missing.pem}}", "there is no"),
        ],
    )
    def test_logins_and_urls_are_checked(self, tmp_path: Path, section: str, message: str) -> None:
        lines = refused(tmp_path, f"cluster:\n  {section}\n")
        assert any(message in line and line.startswith(".wippy.yaml:2: cluster.") for line in lines), lines

    def test_cert_and_key_belong_together_and_are_relative_to_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf/c.pem").touch()
        (tmp_path / "conf/x.yaml").write_text("cluster: {nats: {tls: {cert: c.pem, key: c.pem}}}\n")
        settings = load_settings(tmp_path, files=[tmp_path / "conf/x.yaml"], environ={})
        assert settings.cluster.nats.tls is not None
        assert settings.cluster.nats.tls.cert == tmp_path / "conf/c.pem"
        assert any(
            "cert and key together" in line
            for line in refused(tmp_path / "conf", "cluster: {nats: {tls: {cert: c.pem}}}")
        )

    def test_secrets_are_not_shown(self, tmp_path: Path) -> None:
        settings = load(
            tmp_path, WIPPY_NATS_TOKEN="tell-nobody", WIPPY_ETCD_USER="u", WIPPY_ETCD_PASSWORD="tell-nobody"
        )
        assert "tell-nobody" not in repr(settings)


class TestReferences:
    def test_environment_and_vars_are_filled_in_and_whole_values_keep_their_type(self, tmp_path: Path) -> None:
        text = """
vars: {port: 9500, name: "${env:NAME}"}
metrics: {port: "${port}"}
cluster: {name: "${name}-${env:STAGE|dev}"}
override: {"app:x:text": "$${kept} ${port}"}
"""
        settings = load(tmp_path, text, NAME="shop")
        assert settings.metrics.port == 9500
        assert settings.cluster.name == "shop-dev"
        assert settings.override == {"app:x:text": "${kept} 9500"}

    def test_a_missing_reference_is_refused_with_its_line(self, tmp_path: Path) -> None:
        lines = refused(
            tmp_path,
            "logger: {}\ncluster:\n  name: ${env:NO}\nlabels: {}\nvars: {nane: x}\nrelay: {node_name: '${name}'}\n",
        )
        assert any(line.startswith(".wippy.yaml:3: cluster.name: environment variable NO is not set") for line in lines)
        assert any("there is no name under vars; did you mean 'nane'?" in line for line in lines)


class TestRefusals:
    def test_all_problems_are_told_at_once_each_with_its_place(self, tmp_path: Path) -> None:
        text = (
            "logger:\n  encodin: json\nclustr: {}\ncluster:\n  lease_ttl: 2s\n"
            "metrics: {port: 99999}\nshutdown: {timeout: soon}\n"
        )
        lines = refused(tmp_path, text, "limits.max_message=lots", "nonsense", WIPPY_NODE="bad name")
        expected = [
            ".wippy.yaml:2: logger.encodin: unknown field 'encodin'; did you mean 'encoding'?",
            ".wippy.yaml:3: clustr: unknown section 'clustr'; did you mean 'cluster'?",
            ".wippy.yaml:5: cluster.lease_ttl: expected at least 4s, got 2s",
            ".wippy.yaml:6: metrics.port: expected at most 65535, got 99999",
            ".wippy.yaml:7: shutdown.timeout: expected a duration such as",
            "--set limits.max_message: limits.max_message: expected a size such as",
            "--set nonsense: expected section.path=value",
            "environment variable WIPPY_NODE: relay.node_name: expected a text that matches",
        ]
        for start in expected:
            assert any(line.startswith(start) for line in lines), (start, lines)
        assert len(lines) == len(expected)

    def test_a_problem_is_placed_in_the_file_that_said_it(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("\n\ncluster: {lease_ttl: 1s}\n")
        (tmp_path / "b.yaml").write_text("cluster: {name: x}\n")
        with pytest.raises(Invalid) as raised:
            load_settings(tmp_path, files=[tmp_path / "a.yaml", tmp_path / "b.yaml"], environ={})
        assert [(problem.file, problem.line) for problem in raised.value.problems] == [("a.yaml", 3)]

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match=r"x\.yaml: can't be read"):
            load_settings(tmp_path, files=[tmp_path / "x.yaml"], environ={})

    @pytest.mark.parametrize("text", ["a: [", "- 1\n", "cluster: 5\n", "cluster: {link_timeout: 4s}\n"])
    def test_files_of_another_shape_are_refused(self, tmp_path: Path, text: str) -> None:
        assert all(line.startswith(".wippy.yaml:") for line in refused(tmp_path, text))

    def test_an_empty_file_is_fine(self, tmp_path: Path) -> None:
        assert load(tmp_path, "# nothing\n").embedded


class TestTheOriginalsKeys:
    def test_each_replaced_section_gives_one_warning_that_names_the_replacement(self, tmp_path: Path) -> None:
        text = "cluster:\n  enabled: true\n  membership: {bind_port: 1}\n  internode: {}\n  raft: {data_dir: x}\n"
        warnings = [str(warning) for warning in load(tmp_path, text).warnings]
        assert len(warnings) == 3
        assert ".wippy.yaml:3: cluster.membership" in warnings[0]
        assert "set cluster.etcd" in warnings[0]

    def test_the_originals_cluster_name_is_the_nodes(self, tmp_path: Path) -> None:
        settings = load(tmp_path, "cluster: {name: node-1, membership: {}, failure_domain: zone-a}\n")
        assert (settings.node, settings.cluster.name) == ("node-1", "wippy")
        assert settings.labels == {"failure_domain": "zone-a"}
        assert any("write it as relay.node_name" in warning.message for warning in settings.warnings)

    def test_a_cluster_name_given_as_option_stays_the_clusters(self, tmp_path: Path) -> None:
        settings = load(tmp_path, "cluster: {membership: {}}\n", "cluster.name=prod")
        assert settings.cluster.name == "prod"

    def test_known_sections_without_effect_are_accepted_with_a_warning(self, tmp_path: Path) -> None:
        warnings = load(tmp_path, "otel: {enabled: true}\nprofiler: {}\nlua: {cache: {enabled: true}}\n").warnings
        assert [warning.field for warning in warnings] == ["otel"]

    def test_a_protection_that_is_not_there_is_warned_about(self, tmp_path: Path) -> None:
        (warning,) = load(tmp_path, "security: {strict_mode: true}\n").warnings
        assert "permissions are not checked" in warning.message
        assert load(tmp_path, "security: {strict_mode: false}\n").warnings == ()

    def test_prometheus_without_address_is_warned_about(self, tmp_path: Path) -> None:
        assert len(load(tmp_path, "prometheus: {enabled: true}\n").warnings) == 1
        assert load(tmp_path, 'prometheus: {enabled: true, address: "localhost:9090"}\n').warnings == ()


class TestReplacements:
    def test_directories_are_relative_to_the_first_file(self, tmp_path: Path) -> None:
        (tmp_path / "http").mkdir()
        settings = load(tmp_path, "workspace: {replacements: {acme/http: ./http, acme/sql: null}}\n")
        assert settings.workspace.replacements == {"acme/http": tmp_path / "http", "acme/sql": None}

    def test_a_directory_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        assert any("there is no" in line for line in refused(tmp_path, "workspace: {replacements: {a/b: ./x}}\n"))


class TestDescribe:
    def test_every_setting_is_used_or_said_to_have_no_effect(self) -> None:
        node = Path(__file__).parents[4] / "node"
        code = "".join(file.read_text() for file in node.rglob("*.py") if "settings" not in file.parts)
        loading = (node / "settings" / "load.py").read_text()
        unused = [
            setting.path
            for setting in describe()
            if not setting.text.startswith("Accepted")
            and not re.search(rf"\.{setting.path.rpartition('.')[2]}\b", code)
            and f'"{setting.path}"' not in loading
        ]
        assert unused == []

    def test_every_setting_is_described(self) -> None:
        found = {setting.path: setting for setting in describe()}
        assert found["cluster.lease_ttl"].default == "5s"
        assert "cluster.nats.tls.ca" in found
        assert [path for path, setting in found.items() if not setting.text] == []
        assert not {"node", "directory", "warnings"} & set(found)
