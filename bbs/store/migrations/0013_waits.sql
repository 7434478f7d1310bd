-- A row waits, for a cell or for the time of its next attempt, when no cell has it (cell_while_placed). Told so, this index
-- does not name the state: a start changes nothing that any index names, so where the page has room it touches none.
DROP INDEX actual_lrps_to_place;
CREATE INDEX actual_lrps_to_place ON actual_lrps (next_attempt_at) WHERE cell_id IS NULL;
ALTER TABLE actual_lrps SET (fillfactor = 70);

-- The same as save_unchanged of 0012, for few rows. That is one statement, which Postgres plans anew at each call: a plan to
-- be kept is made for more rows than there are mostly, so one for these values looks cheaper; and one that is kept from when
-- the tables were small reads them whole when they have grown. For many rows that does not matter; for few, planning took
-- longer than the rest. Here each row is looked up by its key: that plan is good for all, and kept.
CREATE FUNCTION save_few_unchanged(
    guids text[], indices integer[], presences text[], states text[], instance_guids text[], cell_ids text[],
    net_infos bytea[], crash_counts integer[], crash_reasons text[], placement_errors text[],
    attempt_counts integer[], next_attempts timestamptz[], routables boolean[], zones text[], tag_epochs text[],
    tag_indices bigint[], revisions bigint[], boot_ids text[], desired_epochs text[], desired_indices bigint[]
) RETURNS TABLE (process_guid text, index integer, since timestamptz)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    seen record;
    new record;
BEGIN
    FOR seen IN
        SELECT DISTINCT guid COLLATE "C" AS guid, epoch, number
        FROM unnest(guids, desired_epochs, desired_indices) AS each (guid, epoch, number)
        WHERE epoch IS NOT NULL ORDER BY guid
    LOOP
        PERFORM FROM desired_lrps
        WHERE (process_guid, tag_epoch, tag_index) = (seen.guid, seen.epoch, seen.number) FOR SHARE;
    END LOOP;
    FOR new IN
        SELECT * FROM unnest(guids, indices, presences, states, instance_guids, cell_ids, net_infos, crash_counts,
                             crash_reasons, placement_errors, attempt_counts, next_attempts, routables, zones,
                             tag_epochs, tag_indices, revisions, boot_ids, desired_epochs, desired_indices)
            AS each (guid, number, presence, state, instance_guid, cell_id, net_info, crash_count, crash_reason,
                     placement_error, attempts, next_attempt_at, routable, availability_zone, tag_epoch, tag_index,
                     revision, boot_id, desired_epoch, desired_index)
        ORDER BY guid COLLATE "C", number, presence COLLATE "C"
    LOOP
        RETURN QUERY
            UPDATE actual_lrps
            SET state = new.state, instance_guid = new.instance_guid, cell_id = new.cell_id, net_info = new.net_info,
                since = clock_timestamp(), crash_count = new.crash_count, crash_reason = new.crash_reason,
                placement_error = new.placement_error, failure_id = NULL, attempts = new.attempts,
                next_attempt_at = new.next_attempt_at, routable = new.routable,
                availability_zone = new.availability_zone, tag_index = new.tag_index, revision = new.revision,
                labels = CASE WHEN instance_guid = new.instance_guid THEN labels END
            WHERE (process_guid, index, presence) = (new.guid, new.number, new.presence)
                AND (tag_epoch, tag_index) = (new.tag_epoch, new.tag_index - 1)
                AND (new.desired_epoch IS NULL OR EXISTS (
                    SELECT FROM desired_lrps WHERE process_guid = new.guid
                        AND (tag_epoch, tag_index) = (new.desired_epoch, new.desired_index)
                ))
                AND (new.boot_id IS NULL OR EXISTS (
                    SELECT FROM cells WHERE cell_id = new.cell_id AND new.boot_id IN ('', boot_id)
                        AND expires_at > clock_timestamp()
                ))
            RETURNING process_guid, index, since;
    END LOOP;
END
$$;
