-- The key of the hashes in ETags of lists: without it nobody can find out from a tag what a hidden value was.
CREATE TABLE list_tags (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seed bigint NOT NULL
);

INSERT INTO list_tags (seed)
VALUES (('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint);
