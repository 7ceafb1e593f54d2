"""gdcm's process: what it answers belongs to the frame that was asked for."""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any

import pytest

from domainseg.imaging import guarded


class Child:
    """A process that is interrupted, or that answers too little."""

    def __init__(self, answer: bytes | BaseException) -> None:
        self.answer, self.killed = answer, False
        self.stdin, self.stdout = BytesIO(), self

    def read(self, size: int) -> bytes:
        if isinstance(self.answer, BaseException):
            raise self.answer
        found, self.answer = self.answer[:size], self.answer[size:]
        return found

    def poll(self) -> int | None:
        return -9 if self.killed else None

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


def process(child: Child) -> Any:
    one = guarded._Process()
    one._child, one._owner = child, os.getpid()  # type: ignore[assignment]
    return one


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (BrokenPipeError(), RuntimeError),
        ((8).to_bytes(8, "little") + b"1234", RuntimeError),
    ],
)
def test_a_process_whose_answer_was_not_taken_is_not_asked_again(answer: Any, error: type[BaseException]) -> None:
    """What is left in its pipe would be taken for the next frame, of another patient."""
    child = Child(answer)
    one = process(child)
    with pytest.raises(error):
        one.ask(b"frame")
    assert child.killed
    assert one._child is None


def test_a_frame_that_cannot_be_decoded_costs_no_process() -> None:
    child = Child((0).to_bytes(8, "little"))
    with pytest.raises(RuntimeError):
        process(child).ask(b"frame")
    assert not child.killed
    assert process(Child((4).to_bytes(8, "little") + b"1234")).ask(b"frame") == b"1234"
