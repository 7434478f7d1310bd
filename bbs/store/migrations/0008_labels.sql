-- What is told of each instance besides its state, for lists of very many that need nothing else of a definition. As JSON.
ALTER TABLE desired_lrps ADD COLUMN labels bytea;
UPDATE desired_lrps SET labels = convert_to(json_build_object(
    'internal_routes', convert_from(definition, 'UTF8')::json -> 'routes' -> 'internal-router',
    'metric_tags', COALESCE(convert_from(definition, 'UTF8')::json -> 'metric_tags', '{}'::json)
)::text, 'UTF8');
ALTER TABLE desired_lrps ALTER COLUMN labels SET NOT NULL;

-- What a rep of Diego told of the instance that the row names; it counts instead. NULL: nobody told anything.
ALTER TABLE actual_lrps ADD COLUMN labels bytea;
CREATE INDEX actual_lrps_labels ON actual_lrps (process_guid) WHERE labels IS NOT NULL;
