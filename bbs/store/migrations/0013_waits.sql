-- A row waits, for a cell or for the time of its next attempt, when no cell has it (cell_while_placed). Told so, this index
-- does not name the state: a start changes nothing that any index names, so where the page has room it touches none.
DROP INDEX actual_lrps_to_place;
CREATE INDEX actual_lrps_to_place ON actual_lrps (next_attempt_at) WHERE cell_id IS NULL;
ALTER TABLE actual_lrps SET (fillfactor = 70);

-- What Postgres takes for granted of an array is more than it has mostly, so that a plan for these values looks cheaper
-- than any plan that is kept: each call was planned anew, which took longer than the rest of it.
ALTER FUNCTION save_unchanged SET plan_cache_mode = force_generic_plan;
