from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from bus.batches import partition_of


@given(st.text(), st.integers(1, 50))
def test_a_ticket_goes_to_the_partition_that_kafkas_clients_choose(ticket_id: str, partitions: int) -> None:
    theirs = DefaultPartitioner()(ticket_id.encode(), list(range(partitions)), [])
    assert partition_of(ticket_id, partitions) == theirs
