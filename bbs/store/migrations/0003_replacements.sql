-- Which definition an instance was given, while a replacement is under way or stopped half-way.
ALTER TABLE desired_lrps ADD COLUMN revision bigint NOT NULL DEFAULT 0 CHECK (revision >= 0);
ALTER TABLE actual_lrps ADD COLUMN revision bigint NOT NULL DEFAULT 0 CHECK (revision >= 0);
ALTER TABLE actual_lrps ADD CONSTRAINT beside_is_running CHECK (presence = 'ORDINARY' OR state = 'RUNNING');

-- Two processes with one cell id are told apart by the directory that each keeps its state in.
ALTER TABLE cells ADD COLUMN home_id text NOT NULL DEFAULT '';
