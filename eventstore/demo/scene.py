"""What the demo sets up before it starts: a folder with a registry, settings, and the moment its data are moved to."""

import gzip
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from eventstore.errors import RefusedError

EDITS: Final = "wikiticker-2015-09-12-sampled.json.gz"
BIG_TENANT_EDITS: Final = 500
"""A Wikipedia with at least so many edits gets the 30-day tier, a smaller one 15 days, the biggest its own cluster."""
STALE_DAYS: Final = 10
"""The shortest tier keeps 15 days: a demo that is older would show rows expiring."""

_REGISTRY: Final = """\
# Written by `eventstore demo up`: every Wikipedia is a tenant, on the tier that its number of edits asks for.
clusters:
  es15: {contact_points: [127.0.0.1], port: 19042, datacenter: dc1, replication: 1}
  es30: {contact_points: [127.0.0.1], port: 19052, datacenter: dc1, replication: 1}
  vip:
    contact_points: [127.0.0.1]
    port: 19062
    datacenter: dc1
    replication: 1
    retention: 90d
    buckets: [{width: 15d}]
tiers:
  t15: {retention: 15d, cluster: es15, buckets: [{width: 5d}]}
  t30: {retention: 30d, cluster: es30, buckets: [{width: 10d}]}
tenants:
"""
_SETTINGS: Final = """\
# Written by `eventstore demo up`. Use it with: export EVENTSTORE_CONFIG={config}
registry = {registry}

[gateway]
port = 18080

[local]
data_dir = {servers}
"""


class _Edit(msgspec.Struct):
    channel: str


@dataclass(frozen=True, slots=True)
class Scene:
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "eventstore.toml"

    @property
    def moment(self) -> Path:
        """Holds `shift_to`; that it is there says that the folder is a demo's."""
        return self.folder / "shift-to"

    def is_laid(self) -> bool:
        return self.moment.exists()

    @property
    def registry(self) -> Path:
        return self.folder / "tenants.yaml"

    @property
    def edits(self) -> Path:
        return self.folder / EDITS

    @property
    def worker_log(self) -> Path:
        return self.folder / "worker.log"

    @property
    def gateway(self) -> Path:
        return self.folder / "gateway"

    @property
    def keys(self) -> Path:
        return self.folder / "keys.json"

    @property
    def servers(self) -> Path:
        return self.folder / "servers"

    def lay(self) -> None:
        """Write the folder's files; what a first run has laid stays as it is.

        Raises:
            RefusedError: the folder is somebody else's, or holds a demo so old that its events begin to expire.
        """
        if not self.is_laid() and self.folder.exists() and any(self.folder.iterdir()):
            raise RefusedError(
                f"{self.folder}: expected an empty folder or a demo, found other files; name another --folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.moment.touch()
        if not self.edits.exists():
            source = files("eventstore.demo") / "data"
            self.edits.write_bytes((source / EDITS).read_bytes())
            (self.folder / "page_edited.json").write_bytes((source / "page_edited.json").read_bytes())
        if not self.registry.exists():
            self.registry.write_text(_REGISTRY + "".join(_tenant(*each) for each in _tiers(self.edits)), "utf-8")
        self.config.write_text(
            _SETTINGS.format(config=self.config, registry=_toml(self.registry), servers=_toml(self.servers)), "utf-8"
        )
        if datetime.now(UTC).timestamp() - self.shift_to().timestamp() > STALE_DAYS * 86_400:
            raise RefusedError(
                f"{self.folder}: expected a demo of the last {STALE_DAYS} days, found one of {self.shift_to():%Y-%m-%d} "
                "whose events begin to expire; delete it with `make demo-down` and run it again"
            )

    def shift_to(self) -> datetime:
        """The time of the newest event, the same in every run: times are part of a row, so a new one would be a new row."""
        if not self.moment.read_text("ascii"):
            now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
            self.moment.write_text(now.replace("+00:00", "Z"), "ascii")
        return datetime.fromisoformat(self.moment.read_text("ascii"))

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _tiers(edits: Path) -> list[tuple[str, str]]:
    """(tenant, where it goes), the biggest tenant first."""
    decode = msgspec.json.Decoder(_Edit).decode
    with gzip.open(edits) as lines:
        counts = Counter(decode(line).channel.strip("#") for line in lines)
    (biggest, _), *others = counts.most_common()
    sized = [(name, "tier: t30" if edits >= BIG_TENANT_EDITS else "tier: t15") for name, edits in others]
    return [(biggest, "cluster: vip"), *sized]


def _tenant(name: str, where: str) -> str:
    return f"  {name}: {{{where}, events: {{page_edited: page_edited.json}}}}\n"


def _toml(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)  # a TOML basic string escapes as JSON does
