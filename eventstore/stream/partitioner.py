"""Which partition a key's records are on: murmur2, as Java producers have it by default and ours are told to."""

from typing import Final

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF
_WORD: Final = 4


def partition_of(key: bytes, partitions: int) -> int:
    """Where a producer with the partitioner `murmur2_random` puts a record of this key, in a topic of so many partitions."""
    return (_murmur2(key) & _POSITIVE) % partitions


def _murmur2(key: bytes) -> int:
    """MurmurHash2 of 32 bits, little-endian words, with the seed that Kafka's clients share."""
    rest = len(key) % _WORD
    found = _SEED ^ len(key)
    for at in range(0, len(key) - rest, _WORD):
        word = _times(int.from_bytes(key[at : at + _WORD], "little"))
        found = _times(found) ^ _times(word ^ word >> 24)
    if rest:
        found = _times(found ^ int.from_bytes(key[-rest:], "little"))
    found = _times(found ^ found >> 13)
    return found ^ found >> 15


def _times(word: int) -> int:
    return word * _FACTOR & _MASK
