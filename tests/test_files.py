"""Files that are never seen half-written."""

import signal

import pytest
import torch

from fovea import files


class Interrupted:
    """A file with Ctrl-C at each write."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        signal.raise_signal(signal.SIGINT)
        return self._file.write(data)

    def flush(self):
        self._file.flush()


@pytest.fixture
def ctrl_c():
    """Python's own handling of it, which a process that a script started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_a_file_that_is_being_written(tmp_path):
    path = tmp_path / "resume.pt"
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        torch.save({"x": torch.arange(5)}, Interrupted(file))
    assert torch.load(path, weights_only=True)["x"].tolist() == [0, 1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt):  # as before
        signal.raise_signal(signal.SIGINT)
