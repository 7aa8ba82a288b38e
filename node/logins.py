"""How a node or a verb proves itself to NATS and etcd: the settings as the clients take them."""

from __future__ import annotations

from cluster.bus import Credentials
from cluster.bus import Tls as NatsTls
from cluster.etcd import Tls as EtcdTls
from node.settings.schema import Etcd, Nats


def nats_credentials(settings: Nats) -> Credentials:
    """Raises OSError when the file of the nkey's seed can't be read."""
    seed = settings.nkey_seed_file.read_text().strip() if settings.nkey_seed_file else None
    return Credentials(settings.user, settings.password, settings.token, seed, settings.creds_file)


def nats_tls(settings: Nats) -> NatsTls | None:
    return NatsTls(**dict(settings.tls)) if settings.tls else None


def etcd_tls(settings: Etcd) -> EtcdTls | None:
    return EtcdTls(**dict(settings.tls)) if settings.tls else None
