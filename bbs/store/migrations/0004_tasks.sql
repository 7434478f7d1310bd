-- What runs once. A row lives until its result was taken, or nobody took it for a while.
CREATE TABLE tasks (
    task_guid text COLLATE "C" PRIMARY KEY,
    domain text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('PENDING', 'RUNNING', 'COMPLETED', 'RESOLVING')),
    definition bytea NOT NULL,
    has_callback boolean NOT NULL,
    cell_id text COLLATE "C",
    instance_guid text COLLATE "C",
    boot_id text, -- of the cell when it claimed
    claim_id text, -- of the one start that was granted
    claim_sequence bigint, -- of the cell's books when it claimed
    result bytea NOT NULL, -- UTF-8, which may hold a NUL
    failed boolean NOT NULL,
    failure_reason text,
    failure_id text COLLATE "C",
    rejection_count integer NOT NULL CHECK (rejection_count >= 0),
    rejection_reason text,
    attempts integer NOT NULL CHECK (attempts >= 0),
    next_attempt_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL, -- rises with every change: the revision
    first_completed_at timestamptz,
    CONSTRAINT no_cell_while_pending CHECK (state <> 'PENDING' OR (cell_id IS NULL AND claim_id IS NULL)),
    CONSTRAINT claim_while_running CHECK (
        state <> 'RUNNING'
        OR (cell_id IS NOT NULL AND instance_guid IS NOT NULL AND boot_id IS NOT NULL AND claim_id IS NOT NULL
            AND claim_sequence IS NOT NULL)
    ),
    CONSTRAINT completed_once_over CHECK ((first_completed_at IS NOT NULL) = (state IN ('COMPLETED', 'RESOLVING'))),
    CONSTRAINT failed_only_when_over CHECK (NOT failed OR state IN ('COMPLETED', 'RESOLVING')),
    CONSTRAINT next_attempt_while_pending CHECK (next_attempt_at IS NULL OR state = 'PENDING')
);

CREATE UNIQUE INDEX tasks_instance_guid ON tasks (instance_guid) WHERE instance_guid IS NOT NULL;
CREATE INDEX tasks_cell_id ON tasks (cell_id) WHERE cell_id IS NOT NULL;
CREATE INDEX tasks_domain ON tasks (domain, task_guid);

ALTER TABLE failures ADD COLUMN task_guid text COLLATE "C";
CREATE INDEX failures_task_guid ON failures (task_guid, created_at DESC, id DESC) WHERE task_guid IS NOT NULL;
