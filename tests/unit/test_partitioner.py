import random

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from stream.partitioner import murmur2, partition_of

# Of Apache Kafka's own test (UtilsTest.testMurmur2); Java's ints are signed.
OF_JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), OF_JAVA.items())
def test_the_hash_is_java_s(key, hashed):
    assert murmur2(key) == hashed & 0xFFFFFFFF


@given(st.binary(max_size=300) | st.text().map(str.encode))
def test_the_hash_is_the_reference_s_for_any_key(key):
    assert murmur2(key) == reference(key)


def test_a_key_s_partition_is_the_same_when_asked_again_and_whatever_its_length():
    chance = random.Random(5)
    keys = [chance.randbytes(chance.randrange(0, 200)) for _ in range(2000)]
    once = [partition_of(key, 7) for key in keys]
    assert once == [partition_of(key, 7) for key in keys]
    assert once == [(reference(key) & 0x7FFFFFFF) % 7 for key in keys]
    assert set(once) == set(range(7))
