-- Labels are read with the rows that they are of; and every row of an LRP that is removed has them.
DROP INDEX actual_lrps_labels;

-- Nothing if there is no such LRP. Else an empty row, and then what cells have of it: its rows, marked as to be stopped
-- and with its labels (those that no cell has are removed), and abandoned attempts on cells whose presence lasts.
CREATE OR REPLACE FUNCTION undesire_lrp(its_guid text) RETURNS SETOF actual_lrps LANGUAGE plpgsql AS $$
DECLARE
    its_labels bytea;
BEGIN
    DELETE FROM desired_lrps WHERE process_guid = its_guid RETURNING desired_lrps.labels INTO its_labels;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN NEXT NULL::actual_lrps;
    -- A statement of its own: only one that begins once the LRP is ours sees rows that somebody was just adding to it.
    RETURN QUERY
        WITH found AS (
            SELECT process_guid, index, presence, state FROM actual_lrps
            WHERE process_guid = its_guid ORDER BY index, presence FOR UPDATE
        ), deleted AS (
            DELETE FROM actual_lrps USING found
            WHERE (actual_lrps.process_guid, actual_lrps.index, actual_lrps.presence)
                  = (found.process_guid, found.index, found.presence) AND found.state IN ('UNCLAIMED', 'CRASHED')
        ), asked AS (
            UPDATE actual_lrps
            SET stop_asked_at = coalesce(stop_asked_at, clock_timestamp()),
                tag_index = tag_index + (stop_asked_at IS NULL)::integer,
                labels = coalesce(labels, its_labels)
            FROM found
            WHERE (actual_lrps.process_guid, actual_lrps.index, actual_lrps.presence)
                  = (found.process_guid, found.index, found.presence) AND found.state IN ('CLAIMED', 'RUNNING')
            RETURNING actual_lrps.*
        )
        SELECT * FROM asked ORDER BY asked.index, asked.presence;
    RETURN QUERY
        SELECT (jsonb_populate_record(NULL::actual_lrps, jsonb_build_object(
            'process_guid', process_guid, 'index', index, 'presence', 'ORDINARY', 'domain', domain, 'state', 'CLAIMED',
            'instance_guid', instance_guid, 'cell_id', cell_id, 'since', since, 'crash_count', 0, 'attempts', 0,
            'routable', false, 'availability_zone', '', 'tag_epoch', instance_guid, 'tag_index', 0,
            'revision', abandoned_attempts.revision
        ))).*
        FROM abandoned_attempts JOIN cells USING (cell_id)
        WHERE process_guid = its_guid AND expires_at > clock_timestamp()
        ORDER BY index, instance_guid;
END
$$;
