-- A row waits, for a cell or for the time of its next attempt, when no cell has it (cell_while_placed). Told so, this index
-- does not name the state: a start changes nothing that any index names, so it need not touch one of them.
DROP INDEX actual_lrps_to_place;
CREATE INDEX actual_lrps_to_place ON actual_lrps (next_attempt_at) WHERE cell_id IS NULL;
