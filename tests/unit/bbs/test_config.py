"""Settings that would turn a decision around are refused at the start."""

from pathlib import Path

import pytest

from bbs.config import BbsConfig
from diego_py.service.config import ConfigError, load


@pytest.mark.parametrize(("weight", "allowed"), [("0", True), ("0.25", True), ("-0.25", False)])
def test_a_weight_below_0_is_refused(tmp_path: Path, weight: str, allowed: bool) -> None:
    path = tmp_path / "bbs.json"
    path.write_text(f'{{"dsn": "postgresql://", "bin_pack_weight": {weight}}}')
    if allowed:
        assert load(BbsConfig, path).bin_pack_weight == float(weight)
    else:
        with pytest.raises(ConfigError, match="bin_pack_weight"):
            load(BbsConfig, path)
