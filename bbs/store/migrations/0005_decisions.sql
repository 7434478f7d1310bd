-- What the leader decided in its last round about what is not as desired: one row, replaced as a whole.
CREATE TABLE decisions (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch bigint NOT NULL DEFAULT 0,
    owner text NOT NULL DEFAULT '',
    decided_at timestamptz,
    document bytea NOT NULL DEFAULT '\x7b7d'
);
INSERT INTO decisions DEFAULT VALUES;
