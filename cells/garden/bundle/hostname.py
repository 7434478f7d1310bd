"""The host name: the last 49 characters, as Diego has it (some programs break on longer ones)."""

from __future__ import annotations

import re

from cells.garden.bundle.plan import Config, Plan

CHARACTERS_MAX = 49


def apply(config: Config, plan: Plan) -> Config:
    return {**config, "hostname": plan.hostname} if plan.hostname else config


def shorten(name: str) -> str:
    """`name` as a host name: the end of it, for that is where handles differ."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)[-CHARACTERS_MAX:].lstrip("-.") or "container"
