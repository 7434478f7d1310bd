-- A heartbeat says that a cell is as its last whole report said. It is taken if nothing has changed on our side either.
ALTER TABLE cells ADD COLUMN digest text NOT NULL DEFAULT ''; -- of the last whole report
ALTER TABLE cells ADD COLUMN told bigint NOT NULL DEFAULT 0; -- its sequence
ALTER TABLE cells ADD COLUMN settled bigint; -- fingerprint of the cell's rows when they and that report agreed; null: they did not
ALTER TABLE cells ADD COLUMN draining boolean NOT NULL DEFAULT false;
UPDATE cells SET told = sequence,
                 draining = coalesce((convert_from(presence, 'UTF8')::json ->> 'draining')::boolean, false);

-- What convergence looks for in every round is found without reading every row.
CREATE INDEX actual_lrps_beside ON actual_lrps (process_guid, index) WHERE presence <> 'ORDINARY';
CREATE INDEX actual_lrps_to_stop ON actual_lrps (process_guid, index) WHERE stop_asked_at IS NOT NULL;
