-- What is queried has a column; the rest of a noun is JSON as bytea, which reads four times faster than jsonb.
-- Names compare by byte (COLLATE "C"): key order is then the same in the database and in Python.

CREATE TABLE domains (
    domain text COLLATE "C" PRIMARY KEY,
    expires_at timestamptz -- null: never
);

CREATE TABLE desired_lrps (
    process_guid text COLLATE "C" PRIMARY KEY,
    domain text COLLATE "C" NOT NULL,
    instances integer NOT NULL CHECK (instances >= 0),
    memory_mb integer NOT NULL CHECK (memory_mb >= 0),
    disk_mb integer NOT NULL CHECK (disk_mb >= 0),
    rootfs text NOT NULL,
    placement_tags text[] NOT NULL,
    definition bytea NOT NULL,
    tag_epoch text NOT NULL,
    tag_index bigint NOT NULL CHECK (tag_index >= 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE INDEX desired_lrps_domain ON desired_lrps (domain, process_guid);

-- No reference to desired_lrps: rows outlive their desired LRP until their container is known to be gone.
CREATE TABLE actual_lrps (
    process_guid text COLLATE "C" NOT NULL,
    index integer NOT NULL CHECK (index >= 0),
    presence text COLLATE "C" NOT NULL CHECK (presence IN ('ORDINARY', 'EVACUATING', 'SUSPECT')),
    domain text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('UNCLAIMED', 'CLAIMED', 'RUNNING', 'CRASHED')),
    instance_guid text COLLATE "C",
    cell_id text COLLATE "C",
    net_info bytea,
    since timestamptz NOT NULL,
    crash_count integer NOT NULL CHECK (crash_count >= 0),
    crash_reason text,
    placement_error text,
    failure_id text COLLATE "C",
    attempts integer NOT NULL CHECK (attempts >= 0),
    next_attempt_at timestamptz,
    routable boolean NOT NULL,
    availability_zone text NOT NULL,
    tag_epoch text NOT NULL,
    tag_index bigint NOT NULL CHECK (tag_index >= 0),
    PRIMARY KEY (process_guid, index, presence),
    CONSTRAINT cell_while_placed CHECK ((cell_id IS NOT NULL) = (state IN ('CLAIMED', 'RUNNING'))),
    CONSTRAINT instance_while_placed CHECK (instance_guid IS NOT NULL OR state IN ('UNCLAIMED', 'CRASHED')),
    CONSTRAINT no_instance_while_crashed CHECK (instance_guid IS NULL OR state <> 'CRASHED'),
    CONSTRAINT net_info_while_running CHECK ((net_info IS NOT NULL) = (state = 'RUNNING')),
    CONSTRAINT routable_only_while_running CHECK (NOT routable OR state = 'RUNNING'),
    CONSTRAINT placement_error_only_while_unclaimed CHECK (placement_error IS NULL OR state = 'UNCLAIMED'),
    CONSTRAINT unclaimed_is_ordinary CHECK (presence = 'ORDINARY' OR state <> 'UNCLAIMED')
);

CREATE UNIQUE INDEX actual_lrps_instance_guid ON actual_lrps (instance_guid) WHERE instance_guid IS NOT NULL;
CREATE INDEX actual_lrps_cell_id ON actual_lrps (cell_id) WHERE cell_id IS NOT NULL;
CREATE INDEX actual_lrps_domain ON actual_lrps (domain, process_guid, index, presence);
CREATE INDEX actual_lrps_to_place ON actual_lrps (next_attempt_at) WHERE state IN ('UNCLAIMED', 'CRASHED');

-- Written at each report of each cell: room in the pages and no index on what changes keep these updates in place.
CREATE TABLE cells (
    cell_id text COLLATE "C" PRIMARY KEY,
    boot_id text NOT NULL,
    former_boot_id text, -- the boot that this one replaced: what it sent late does not count
    url text NOT NULL,
    zone text NOT NULL,
    address text NOT NULL,
    presence bytea NOT NULL,
    available_memory_mb integer NOT NULL,
    available_disk_mb integer NOT NULL,
    available_containers integer NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE idempotency_keys (
    key text COLLATE "C" PRIMARY KEY,
    route text NOT NULL,
    request_hash bytea NOT NULL,
    state text NOT NULL CHECK (state IN ('in_flight', 'done')),
    owner text NOT NULL,
    status integer,
    headers bytea,
    body bytea,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT answer_when_done CHECK (
        (state = 'done') = (status IS NOT NULL AND headers IS NOT NULL AND body IS NOT NULL)
    )
);

CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

CREATE TABLE failures (
    id text COLLATE "C" PRIMARY KEY,
    process_guid text COLLATE "C",
    index integer,
    instance_guid text COLLATE "C",
    cell_id text COLLATE "C",
    domain text COLLATE "C",
    request_id text NOT NULL,
    phase text NOT NULL,
    code text NOT NULL,
    fault text NOT NULL,
    status integer NOT NULL,
    document bytea NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE INDEX failures_process_guid ON failures (process_guid, created_at DESC, id DESC);
CREATE INDEX failures_created_at ON failures (created_at DESC, id DESC);

CREATE TABLE leader (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch bigint NOT NULL CHECK (epoch >= 0),
    owner text NOT NULL,
    expires_at timestamptz NOT NULL
);

INSERT INTO leader (epoch, owner, expires_at) VALUES (0, '', '-infinity');
