-- Claimed instances that their row no longer names, and whose cell has not said yet that they are gone.
CREATE TABLE abandoned_attempts (
    instance_guid text COLLATE "C" PRIMARY KEY,
    process_guid text COLLATE "C" NOT NULL,
    index integer NOT NULL CHECK (index >= 0),
    domain text COLLATE "C" NOT NULL,
    cell_id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    since timestamptz NOT NULL
);

CREATE INDEX abandoned_attempts_process_guid ON abandoned_attempts (process_guid, index);
CREATE INDEX abandoned_attempts_cell_id ON abandoned_attempts (cell_id);
