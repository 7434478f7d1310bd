-- Rows that are as their writer saw them last are changed in one statement; each change of a row raises its tag, so the
-- tag alone tells. What a row becomes is given, and nothing is written of one that changed meanwhile. Gives since when
-- each row that was written is what it is.
--
-- Where a boot or an LRP's tag is given for a row, the row is a cell's claim: that cell must be live (with that boot, if
-- it is not empty), and its LRP must have that tag until we are done, so that whoever changes the LRP finds the cell.
-- Locks are taken as everybody takes them: LRPs, then rows, both in order.
CREATE FUNCTION save_unchanged(
    guids text[], indices integer[], presences text[], states text[], instance_guids text[], cell_ids text[],
    net_infos bytea[], crash_counts integer[], crash_reasons text[], placement_errors text[],
    attempt_counts integer[], next_attempts timestamptz[], routables boolean[], zones text[], tag_epochs text[],
    tag_indices bigint[], revisions bigint[], boot_ids text[], desired_epochs text[], desired_indices bigint[]
) RETURNS TABLE (process_guid text, index integer, since timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM desired_lrps
    JOIN (SELECT DISTINCT * FROM unnest(guids, desired_epochs, desired_indices))
        AS seen (process_guid, tag_epoch, tag_index) USING (process_guid, tag_epoch, tag_index)
    ORDER BY process_guid FOR SHARE OF desired_lrps;
    RETURN QUERY
        WITH new AS MATERIALIZED (
            SELECT * FROM unnest(guids, indices, presences, states, instance_guids, cell_ids, net_infos, crash_counts,
                                 crash_reasons, placement_errors, attempt_counts, next_attempts, routables, zones,
                                 tag_epochs, tag_indices, revisions, boot_ids, desired_epochs, desired_indices)
                AS new (process_guid, index, presence, state, instance_guid, cell_id, net_info, crash_count,
                        crash_reason, placement_error, attempts, next_attempt_at, routable,
                        availability_zone, tag_epoch, tag_index, revision, boot_id, desired_epoch, desired_index)
        ), unchanged AS (
            SELECT process_guid, index, presence
            FROM actual_lrps JOIN new USING (process_guid, index, presence, tag_epoch)
            WHERE actual_lrps.tag_index = new.tag_index - 1
                AND (new.desired_epoch IS NULL OR EXISTS (
                    SELECT FROM desired_lrps WHERE desired_lrps.process_guid = new.process_guid
                        AND (desired_lrps.tag_epoch, desired_lrps.tag_index) = (new.desired_epoch, new.desired_index)
                ))
                AND (new.boot_id IS NULL OR EXISTS (
                    SELECT FROM cells WHERE cells.cell_id = new.cell_id AND new.boot_id IN ('', cells.boot_id)
                        AND expires_at > clock_timestamp()
                ))
            ORDER BY process_guid, index, presence FOR UPDATE OF actual_lrps
        )
        UPDATE actual_lrps
        SET state = new.state, instance_guid = new.instance_guid, cell_id = new.cell_id, net_info = new.net_info,
            since = clock_timestamp(), crash_count = new.crash_count, crash_reason = new.crash_reason,
            placement_error = new.placement_error, failure_id = NULL, attempts = new.attempts,
            next_attempt_at = new.next_attempt_at, routable = new.routable, availability_zone = new.availability_zone,
            tag_index = new.tag_index, revision = new.revision,
            labels = CASE WHEN actual_lrps.instance_guid = new.instance_guid THEN labels END
        FROM new JOIN unchanged USING (process_guid, index, presence)
        WHERE (actual_lrps.process_guid, actual_lrps.index, actual_lrps.presence)
              = (new.process_guid, new.index, new.presence)
        RETURNING actual_lrps.process_guid, actual_lrps.index, actual_lrps.since;
END
$$;
