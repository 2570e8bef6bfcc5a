"""What the drill publishes, looked at before it is published."""

from random import Random

from llm.redaction import ALWAYS, Masks
from tests.drill.load import Load


def test_no_question_holds_what_the_gateway_masks() -> None:
    """The model would answer another question; an id's last digits, behind a dash, were a card number's."""
    load = Load("d3003", Random("3003/load"), spread_s=1.0)
    load.ordinary(1000)
    questions = [message.question for sequence in load.sequences for message in sequence]
    assert [question for question in questions if Masks(ALWAYS).masked(question) != question] == []
