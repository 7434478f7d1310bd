-- An LRP and its rows change in one statement: one way to the database and back. All of it is done, or nothing. In a
-- function each statement sees what was committed before it began, as in a transaction that is sent piece by piece.

-- Nothing if there is such an LRP. Else an empty row, and then one for each new instance.
CREATE FUNCTION desire_lrp(
    its_guid text, its_domain text, its_instances integer, its_memory_mb integer, its_disk_mb integer, its_rootfs text,
    its_placement_tags text[], its_definition bytea, its_update_strategy text, its_labels bytea, its_tag_epoch text,
    instance_guids text[], tag_epochs text[]
) RETURNS SETOF actual_lrps LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO desired_lrps (process_guid, domain, instances, memory_mb, disk_mb, rootfs, placement_tags, definition,
                              update_strategy, labels, tag_epoch, tag_index, created_at, updated_at)
    VALUES (its_guid, its_domain, its_instances, its_memory_mb, its_disk_mb, its_rootfs, its_placement_tags,
            its_definition, its_update_strategy, its_labels, its_tag_epoch, 0, statement_timestamp(),
            statement_timestamp())
    ON CONFLICT (process_guid) DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN NEXT NULL::actual_lrps;
    IF EXISTS (SELECT FROM actual_lrps WHERE process_guid = its_guid AND stop_asked_at IS NOT NULL) THEN
        RAISE EXCEPTION 'instances are still to be stopped' USING ERRCODE = 'object_in_use';
    END IF;
    RETURN QUERY
        INSERT INTO actual_lrps (process_guid, index, presence, domain, state, instance_guid, since, crash_count,
                                 attempts, routable, availability_zone, tag_epoch, tag_index, revision)
        SELECT its_guid, new.number - 1, 'ORDINARY', its_domain, 'UNCLAIMED', new.instance_guid, clock_timestamp(), 0,
               0, false, '', new.tag_epoch, 0, 0
        FROM unnest(instance_guids, tag_epochs) WITH ORDINALITY AS new (instance_guid, tag_epoch, number)
        ON CONFLICT (process_guid, index, presence) DO NOTHING
        RETURNING *;
END
$$;

-- Nothing if there is no such LRP. Else an empty row, and then what cells have of it: its rows, marked as to be stopped
-- and with its labels (those that no cell has are removed), and abandoned attempts on cells whose presence lasts.
CREATE FUNCTION undesire_lrp(its_guid text) RETURNS SETOF actual_lrps LANGUAGE plpgsql AS $$
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

-- Labels are read with the rows that they are of; and every row of an LRP that is removed has them.
DROP INDEX actual_lrps_labels;
