"""Every etcd key, named once. Prefix ``/wippy/<cluster>/``.

Keys marked L live on their owner's lease. Version numbers in keys are 16 hex digits, so
that keys sort as numbers do.
"""

from __future__ import annotations

from dataclasses import dataclass


def version_text(version: int) -> str:
    """A registry version as it stands in a key."""
    return f"{version:016x}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster."""

    cluster: str

    @property
    def prefix(self) -> str:
        return f"/wippy/{self.cluster}/"

    @property
    def incarnation(self) -> str:
        """Counter: the incarnation drawn last."""
        return f"{self.prefix}incarnation"

    @property
    def nodes(self) -> str:
        return f"{self.prefix}nodes/"

    def node(self, node: str) -> str:
        """L. Registration of a node; its create_revision is the node's epoch."""
        return f"{self.nodes}{node}"

    @property
    def registry(self) -> str:
        return f"{self.prefix}registry/"

    @property
    def head(self) -> str:
        """The registry's current version."""
        return f"{self.registry}head"

    @property
    def floor(self) -> str:
        """The capability in use: kinds with their schema numbers."""
        return f"{self.registry}floor"

    @property
    def changes(self) -> str:
        return f"{self.registry}changes/"

    def change(self, version: int) -> str:
        return f"{self.changes}{version_text(version)}"

    @property
    def snapshots(self) -> str:
        return f"{self.registry}snapshots/"

    def snapshot(self, version: int) -> str:
        return f"{self.snapshots}{version_text(version)}"

    @property
    def blobs(self) -> str:
        return f"{self.registry}blobs/"

    def blob(self, upload: str, chunk: int) -> str:
        return f"{self.blobs}{upload}/{chunk:08x}"

    @property
    def uploads(self) -> str:
        return f"{self.registry}uploads/"

    def upload(self, upload: str) -> str:
        """L. A writer is at work on the blobs of this upload."""
        return f"{self.uploads}{upload}"

    @property
    def config(self) -> str:
        """The operator overlay."""
        return f"{self.prefix}config/"

    def overlay(self, entry: str) -> str:
        return f"{self.config}{entry}"

    @property
    def config_status(self) -> str:
        return f"{self.prefix}config-status/"

    def overlay_status(self, entry: str) -> str:
        return f"{self.config_status}{entry}"

    @property
    def names(self) -> str:
        return f"{self.prefix}names/"

    def name(self, name: str) -> str:
        """L. A cluster name; its mod_revision is the fencing token."""
        return f"{self.names}{name}"

    @property
    def services(self) -> str:
        return f"{self.prefix}services/"

    def service(self, service: str, replica: int) -> str:
        """L. The claim of one replica; its mod_revision is the fencing token."""
        return f"{self.services}{service}/{replica}"

    def service_state(self, service: str, replica: int) -> str:
        """L. Sibling of the claim: the PID and state of the replica."""
        return f"{self.services}{service}/{replica}.state"

    @property
    def heirs(self) -> str:
        return f"{self.prefix}heirs/"

    def heir(self, service: str, replica: int) -> str:
        """L of the owner. The node that is to take the replica over; fences the owner's process from then on."""
        return f"{self.heirs}{service}/{replica}"

    def heir_begun(self, service: str, replica: int) -> str:
        """L of the heir. It starts its process, which this fences until it has the claim."""
        return f"{self.heirs}{service}/{replica}.begun"

    @property
    def avoids(self) -> str:
        return f"{self.prefix}avoid/"

    def avoid(self, service: str, node: str) -> str:
        """L. The node could not start the service and takes no replica of it for a while."""
        return f"{self.avoids}{service}/{node}"

    @property
    def suspects(self) -> str:
        return f"{self.prefix}suspects/"

    def suspect(self, service: str, epoch: int) -> str:
        """On a lease of its own. The registration ``epoch`` ended because a process of the service hung."""
        return f"{self.suspects}{service}/{epoch}"

    @property
    def quarantines(self) -> str:
        return f"{self.prefix}quarantine/"

    def quarantine(self, service: str) -> str:
        """The service is started nowhere until somebody releases it."""
        return f"{self.quarantines}{service}"

    @property
    def moved(self) -> str:
        return f"{self.prefix}moved/"

    def moved_process(self, uniq: str) -> str:
        """L. Where a process that moved lives now."""
        return f"{self.moved}{uniq}"

    @property
    def locks(self) -> str:
        return f"{self.prefix}locks/"

    def lock(self, name: str) -> str:
        """L."""
        return f"{self.locks}{name}"

    def store(self, store: str) -> str:
        """The prefix of one ``store.kv.raft``."""
        return f"{self.prefix}kv/{store}/"
