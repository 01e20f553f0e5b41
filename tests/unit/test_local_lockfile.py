"""What the embedded servers are made of is pinned, and only what this machine needs is fetched."""

import re
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from eventstore.local.lockfile import LOCK_NAME, Coordinate, Distribution, Pin, load_lock, this_platform, write_lock
from eventstore.local.resolution import ROOTS

pytestmark = pytest.mark.unit

PIN = Pin("0" * 64, 1)


def test_a_coordinate_names_its_file_in_a_repository() -> None:
    plain = Coordinate.parse("org.apache.kafka:kafka_2.13:4.1.2")
    native = Coordinate.parse("io.netty:netty-epoll:4.1.0:linux-x86_64")
    assert plain.path == "org/apache/kafka/kafka_2.13/4.1.2/kafka_2.13-4.1.2.jar"
    assert native.path == "io/netty/netty-epoll/4.1.0/netty-epoll-4.1.0-linux-x86_64.jar"
    assert [str(plain), str(native)] == ["org.apache.kafka:kafka_2.13:4.1.2", "io.netty:netty-epoll:4.1.0:linux-x86_64"]


def test_native_libraries_of_other_platforms_are_left_out() -> None:
    here = f"g:native:1:{this_platform()}"
    made = Distribution("1", dict.fromkeys(("g:plain:1", "g:shaded:1:shaded", here, "g:native:1:plan9-mips"), PIN))
    foreign = Distribution("1", dict.fromkeys(("g:native:1:windows-x86_64", "g:native:1:linux-riscv64"), PIN))
    assert [str(found.coordinate) for found in made.needed_here()] == [*made.artifacts]
    assert foreign.needed_here() == ()


def test_the_lock_pins_the_versions_that_the_maintenance_command_resolves() -> None:
    lock = load_lock()
    assert {name: made.version for name, made in lock.items()} == {
        name: version for name, (version, _) in ROOTS.items()
    }
    for name, (_, roots) in ROOTS.items():
        assert set(roots) <= set(lock[name].artifacts)


def test_the_lock_holds_no_address() -> None:
    assert "//" not in (files("eventstore.local") / LOCK_NAME).read_text()


def test_the_lock_holds_one_version_of_each_library() -> None:
    for made in load_lock().values():
        coordinates = [Coordinate.parse(text) for text in made.artifacts]
        libraries = [(found.group, found.name, found.classifier) for found in coordinates]
        assert len(set(libraries)) == len(libraries)


def test_a_written_lock_is_read_again_with_one_artifact_a_line(tmp_path: Path) -> None:
    made = {"kafka": Distribution("1", {"g:a:1": PIN, "g:b:2": PIN}), "cassandra": Distribution("2", {"g:c:3": PIN})}
    path = tmp_path / "lock.json"
    write_lock(path, made)
    assert msgspec.json.decode(path.read_bytes(), type=dict[str, Distribution]) == made
    assert len(re.findall(r"^ \"g:\w:\d\": .*sha256.*size.*$", path.read_text(), re.MULTILINE)) == 3
