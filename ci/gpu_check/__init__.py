"""The parts of `ci/gpu-check`. Python 3.9 or later, standard library alone; PyTorch only in `peers.py`, and only where it is there."""
