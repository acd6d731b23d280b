"""Measures megaring beside what its users would pick instead. `cargo xtask bench peers` brings what it needs and starts it."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
BENCHES = Path(__file__).resolve().parent.parent
# `gpu_check`, which starts programs and describes the machine for both, is in `ci/`.
sys.path[:0] = [str(BENCHES), str(BENCHES.parent / "ci")]

from peers.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
