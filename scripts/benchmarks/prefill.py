"""Rows of instances that simulated cells have from the start, put into Postgres at once without any request."""

from __future__ import annotations

import asyncpg

from bbs.labels import labels_of
from bbs.store import labels
from bbs.store.migrate import migrate
from cells.simulated import prefilled
from diego_py import wire
from diego_py.models.actual_lrp import NetInfo

ROWS = """
    INSERT INTO actual_lrps (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info, since,
                             crash_count, attempts, routable, availability_zone, tag_epoch, tag_index)
    SELECT 'fill-' || to_char(number / $2, 'FM000000'), number % $2, 'ORDINARY', 'bench', 'RUNNING',
           'fill-' || to_char(number, 'FM00000000'), $5 || to_char(number % $3 + 1, '-FM00000'), $4, now(),
           0, 0, true, 'z' || number % $3 % 3 + 1, 'epoch', 1
    FROM generate_series(0, $1 - 1) AS number
"""
DESIRED = """
    INSERT INTO desired_lrps (process_guid, domain, instances, memory_mb, disk_mb, rootfs, placement_tags,
                              definition, labels, tag_epoch, tag_index, created_at, updated_at)
    SELECT 'fill-' || to_char(number, 'FM000000'), 'bench', $2, 16, 0, 'preloaded:busybox', '{}',
           convert_to(replace($3, 'fill-000000', 'fill-' || to_char(number, 'FM000000')), 'UTF8'), $4, 'epoch', 0,
           now(), now()
    FROM generate_series(0, $1 - 1) AS number
"""
NET_INFO = NetInfo(address="192.0.2.1", instance_address="127.0.0.1")
"""As a simulated cell says it of a container without ports."""


async def prefill(dsn: str, cells: int, instances: int, prefix: str = "sim") -> None:
    """As if all of them had been asked for and started, on the cells that `prefilled.on_cell` says."""
    await migrate(dsn)
    database = await asyncpg.connect(dsn)
    try:
        whole = instances // prefilled.EACH
        text = wire.encode_revealed(prefilled.definition(0)).decode()
        each, net_info = prefilled.EACH, wire.encode(NET_INFO)
        async with database.transaction():
            await database.execute(ROWS, whole * each, each, cells, net_info, prefix, timeout=600)
            told = labels.encoded(labels_of(prefilled.definition(0)))
            await database.execute(DESIRED, whole, each, text, told, timeout=600)
        await database.execute("VACUUM ANALYZE", timeout=600)
    finally:
        await database.close()
