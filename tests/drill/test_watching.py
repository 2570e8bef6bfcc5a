"""What the drill notes of the groups' offsets, shown to it without a Kafka."""

from bus.connection import KafkaConnection
from tests.drill.oracles import Place
from tests.drill.watching import Sampler


def test_an_offset_that_stands_is_noted_once_and_again_when_its_topic_is_another() -> None:
    """A group that committed the old topic's offset for the new one would pass unseen."""
    sampler = Sampler(KafkaConnection("nowhere:1"), {})
    for generation in (0, 0, 1, 1):
        sampler._note("g", "t", generation, {0: 5})
    assert [sample.next for sample in sampler.samples] == [Place("t", 0, 5, 0), Place("t", 0, 5, 1)]
