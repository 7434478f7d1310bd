-- How instances are moved when their cell is emptied: convergence decides by it without reading definitions.
ALTER TABLE desired_lrps ADD COLUMN update_strategy text NOT NULL DEFAULT 'ROLLING'
    CHECK (update_strategy IN ('ROLLING', 'RECREATE'));
UPDATE desired_lrps SET update_strategy = convert_from(definition, 'UTF8')::json ->> 'update_strategy'
WHERE convert_from(definition, 'UTF8')::json ->> 'update_strategy' = 'RECREATE';
