"""Nothing is too big to read; the limits stand in scripts/sizes."""

import runpy
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SIZES = CHECKOUT / "scripts" / "sizes"


def test_sizes_are_kept() -> None:
    checked = subprocess.run([sys.executable, SIZES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_too_big_is_found(tmp_path: Path) -> None:
    check_file = runpy.run_path(str(SIZES))["check_file"]
    (tmp_path / "bbs").mkdir()
    source = tmp_path / "bbs" / "big.py"
    long_function = "def long():\n" + "    pass\n" * 60
    wide_method = "class Wide:\n    async def wide(self, a, b, c, d, /, e, f, *g, h, i):\n        pass\n"
    source.write_text(long_function + wide_method + "\n" * 400)
    assert sorted(check_file(source, tmp_path)) == [
        "bbs/big.py:1: file has 464 lines, at most 400",
        "bbs/big.py:1: long has 61 lines, at most 60",
        "bbs/big.py:63: wide has 9 parameters, at most 8",
    ]


def test_what_fits_passes(tmp_path: Path) -> None:
    check_file = runpy.run_path(str(SIZES))["check_file"]
    (tmp_path / "bbs").mkdir()
    source = tmp_path / "bbs" / "small.py"
    source.write_text("class Small:\n    def wide(self, a, b, c, d, e, f, g, h):\n        pass\n" + "\n" * 397)
    assert list(check_file(source, tmp_path)) == []
