"""`eventstore keys`: API keys of tenants for the HTTP edge."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from eventstore.cli.console import AsJson, err, out, print_json, table
from eventstore.config import load_settings
from eventstore.errors import ConfigurationError, RefusedError
from eventstore.registry import load_registry
from eventstore.tenancy import ApiKey, KeyUse, Registry
from eventstore.tenancy.document import parse_registry
from eventstore.tenancy.keys import digest_of, key_text

RANDOM_BYTES = 32

TenantName = Annotated[str, typer.Argument(metavar="TENANT")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="API keys for the HTTP edge; the registry holds their digests only.", no_args_is_help=True)
    app.add_typer(group, name="keys")
    group.command("create")(create)
    group.command("list")(list_keys)
    group.command("revoke")(revoke)


def create(
    tenant: TenantName,
    use: Annotated[KeyUse, typer.Option(help="`write`: events in. `read`: timelines out.")],
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take the key from standard input: one that clients have already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and add it to the registry. It is shown this once; running gateways know it within seconds.

    A tenant may have several keys of one use: to change over, create the new one, hand it out, revoke the old one.

    Examples:
    - `eventstore keys create shop --use write`
    - `eventstore keys create shop --use read --json`
    - `eventstore keys create shop --use write --adopt < key.txt`
    """
    path = load_settings().registry
    if tenant not in (registry := load_registry(path)).tenants:
        raise _unknown(tenant, registry)
    text = _adopted() if adopt else key_text(use, secrets.token_bytes(RANDOM_BYTES))
    key = ApiKey(use, digest_of(text))
    _edit(path, lambda entry: entry.setdefault("keys", []).append({"use": use.value, "sha256": key.digest}), tenant)
    if as_json:
        print_json({"tenant": tenant, "use": use.value, "id": key.id, "key": text})
        return
    out.print(text, highlight=False, soft_wrap=True)
    err.print(f"{use.value} key {key.id} of {tenant}: keep it, it is not shown again")


def list_keys(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]")] = None, as_json: AsJson = False
) -> None:
    """List keys by their ids, the first digits of their digests.

    Examples:
    - `eventstore keys list`
    - `eventstore keys list shop --json`
    """
    registry = load_registry(load_settings().registry)
    if tenant is not None and tenant not in registry.tenants:
        raise _unknown(tenant, registry)
    rows = [(name, key.id, key.use.value) for name, each in registry.tenants.items() for key in each.keys
            if tenant in (None, name)]  # fmt: skip
    if as_json:
        print_json([{"tenant": name, "id": key, "use": use} for name, key, use in rows])
    elif rows:
        out.print(table("API keys", ("tenant", "id", "use"), rows))
    else:
        out.print("No keys: nobody can use the HTTP edge. Make one with `eventstore keys create TENANT --use write`.")


def revoke(
    tenant: TenantName, key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")]
) -> None:
    """Take a key out of the registry: running gateways refuse it within seconds.

    Examples:
    - `eventstore keys revoke shop 9f86d081884c`
    """
    path = load_settings().registry
    if tenant not in (registry := load_registry(path)).tenants:
        raise _unknown(tenant, registry)
    found = [key for key in registry.tenants[tenant].keys if key.id == key_id]
    if not found:
        known = ", ".join(key.id for key in registry.tenants[tenant].keys) or "none"
        raise ConfigurationError(f"tenant {tenant}: expected the id of one of its keys ({known}), got {key_id!r}")

    def remove(entry: Any) -> None:
        held = entry.get("keys", [])  # another may have revoked it meanwhile
        kept = [each for each in held if each["sha256"] != found[0].digest]
        if kept:
            entry["keys"] = kept
        elif "keys" in entry:
            del entry["keys"]

    _edit(path, remove, tenant)
    err.print(f"revoked {found[0].use.value} key {key_id} of {tenant}")


def _edit(registry: Path, change: Any, tenant: str) -> None:
    """Change a tenant's entry and leave the rest of the document, comments too, as it is."""
    path = registry.resolve()  # the document itself, where the setting names a link to it
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4_096  # never wrapped
    yaml.brace_single_entry_mapping_in_flow_sequence = True  # `[{width: 5d}]` stays so
    yaml.indent(mapping=2, sequence=4, offset=2)  # as most people write lists
    with _alone_in(path.parent):
        document = yaml.load(path.read_bytes())
        change(document["tenants"][tenant])
        # beside the registry, so that one rename puts it in place: a gateway never reads half of it
        with NamedTemporaryFile("wb", dir=path.parent, prefix=path.name, delete=False) as file:
            yaml.dump(document, file)
        made = Path(file.name)
        try:
            folder = registry.parent  # what it names is beside the link, as workers and gateways read it
            parse_registry(
                made.read_bytes(),
                lambda name: (folder / name).read_bytes(),
                source=str(registry),
                directory=folder,
            )
            made.chmod(path.stat().st_mode)
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two edits at once would each put back what they have read: the second waits for the first."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _adopted() -> str:
    key = typer.get_text_stream("stdin").read().strip()
    if not key.isprintable() or not 8 <= len(key) <= 256 or ":" in key:  # noqa: PLR2004
        raise RefusedError("--adopt: expected a key of 8 to 256 printable characters without a colon on standard input")
    return key


def _unknown(tenant: str, registry: Registry) -> ConfigurationError:
    known = ", ".join(sorted(registry.tenants)[:10]) or "none"
    return ConfigurationError(f"expected a tenant of the registry ({known}), got {tenant!r}")
