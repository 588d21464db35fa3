"""Items made ahead, in a thread of their own."""

import threading

import pytest

from fovea.data.ahead import ahead


def test_the_next_item_is_made_while_this_one_is_used():
    made = [threading.Event() for _ in range(3)]

    def items():
        for number, event in enumerate(made):
            event.set()
            yield number

    found = ahead(items())
    assert next(found) == 0
    assert made[1].wait(10)
    assert not made[2].is_set()
    assert list(found) == [1, 2]


def test_an_error_comes_with_its_item_and_who_stops_early_leaves_no_thread():
    def items():
        yield 1
        yield 2
        raise ValueError("no third")

    found = ahead(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(found)
    found = ahead(items())
    next(found)
    found.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fovea-batch")]
