"""What happened to every row, told by triggers: the products do not know that they are watched."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
from attrs import frozen

from diego_py.models.actual_lrp import TRANSITIONS, ActualLRPState

WATCHED = """
CREATE TABLE chaos_audit (
    number bigserial PRIMARY KEY,
    process_guid text, index integer, presence text,
    before text, after text,
    instance_before text, instance_after text,
    tag_before bigint, tag_after bigint, epoch_before text, epoch_after text,
    tx xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE FUNCTION chaos_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_audit VALUES (
        DEFAULT, coalesce(NEW.process_guid, OLD.process_guid), coalesce(NEW.index, OLD.index),
        coalesce(NEW.presence, OLD.presence), OLD.state, NEW.state, OLD.instance_guid, NEW.instance_guid,
        OLD.tag_index, NEW.tag_index, OLD.tag_epoch, NEW.tag_epoch
    );
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_audit AFTER INSERT OR UPDATE OR DELETE ON actual_lrps
    FOR EACH ROW EXECUTE FUNCTION chaos_audit();
"""


@frozen
class Change:
    """One change of one row; states are None where there was no row, or is none."""

    number: int
    process_guid: str
    index: int
    presence: str
    before: str | None
    after: str | None
    instance_before: str | None
    instance_after: str | None
    tag_before: int | None
    tag_after: int | None
    epoch_before: str | None
    epoch_after: str | None
    transaction: int


async def watch(connection: asyncpg.Connection) -> None:
    """Begin to write down every change."""
    await connection.execute(WATCHED)


async def changes(connection: asyncpg.Connection) -> list[Change]:
    """Every change so far, in the order of their commits' statements."""
    records = await connection.fetch("SELECT * FROM chaos_audit ORDER BY number")
    return [Change(*record) for record in records]


def violations(seen: list[Change]) -> list[str]:
    """Moves that the table of states does not have, revisions that did not grow, instance guids used twice. Pure."""
    return [*_illegal_moves(seen), *_revisions(seen), *_guids_used_again(seen)]


def _illegal_moves(seen: list[Change]) -> Iterator[str]:
    legal = {(str(before), str(after)) for (before, _), after in TRANSITIONS.items()}
    # A row may be rewritten in place (its failure, its routes), and a new one begins at UNCLAIMED.
    legal |= {(str(state), str(state)) for state in ActualLRPState}
    for change in seen:
        if change.before and change.after and (change.before, change.after) not in legal:
            yield f"{_name(change)} went from {change.before} to {change.after}"


def _revisions(seen: list[Change]) -> Iterator[str]:
    """Nobody sees a row between two changes of one transaction, such as one that is inserted and filled then."""
    written: set[tuple[str, int, str, int]] = set()
    for change in seen:
        row = (change.process_guid, change.index, change.presence, change.transaction)
        again = row in written
        written.add(row)
        if again or change.before is None or change.after is None or change.epoch_before != change.epoch_after:
            continue
        if change.tag_after is None or change.tag_before is None or change.tag_after <= change.tag_before:
            yield f"{_name(change)}: its revision went from {change.tag_before} to {change.tag_after}"


def _guids_used_again(seen: list[Change]) -> Iterator[str]:
    """An instance guid that a row has given up never comes back to it or to another one."""
    given_up: set[str] = set()
    for change in seen:
        taken = change.instance_after if change.instance_after != change.instance_before else None
        if taken in given_up:
            yield f"{_name(change)} took instance {taken}, which had been given up"
        left = change.instance_before if change.instance_after != change.instance_before else None
        if left is not None:
            given_up.add(left)


def _name(change: Change) -> str:
    return f"change {change.number} of {change.process_guid}/{change.index} ({change.presence})"
