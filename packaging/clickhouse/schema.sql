-- The records of a fleet in ClickHouse (docs/fleet.md). Hosts POST their lines to the table `ingest`, which stores nothing.
-- Materialized views convert the lines into rows of the other tables.
CREATE DATABASE IF NOT EXISTS sockstate;

CREATE TABLE IF NOT EXISTS sockstate.ingest (record String) ENGINE = Null;

-- One row per record. Delivery is at least once: a record that comes twice has the same key, and becomes one row in the end.
CREATE TABLE IF NOT EXISTS sockstate.events
(
    time DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    host LowCardinality(String),
    instance LowCardinality(String),
    seq UInt64 CODEC(Delta, ZSTD),
    kind LowCardinality(String),
    conn String,
    community_id String,
    -- The id beyond the translations of conntrack. Empty where there are none.
    nat_community_id String,
    role LowCardinality(String),
    from_state LowCardinality(String),
    to_state LowCardinality(String),
    in_state_ns Nullable(UInt64),
    at_least Bool,
    age_ns Nullable(UInt64),
    local_address String,
    local_port UInt16,
    remote_address String,
    remote_port UInt16,
    pid UInt32,
    comm LowCardinality(String),
    unit LowCardinality(String),
    container_id String,
    container_name LowCardinality(String),
    container_image LowCardinality(String),
    pod_uid String,
    pod_name LowCardinality(String),
    pod_namespace LowCardinality(String),
    workload_kind LowCardinality(String),
    workload_name LowCardinality(String),
    pod_labels Map(LowCardinality(String), String),
    cause LowCardinality(String),
    errno LowCardinality(String),
    place LowCardinality(String),
    count UInt64,
    INDEX by_community_id community_id TYPE bloom_filter GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(time)
ORDER BY (host, instance, seq)
TTL toDateTime(time) + INTERVAL 7 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS sockstate.events_of_ingest TO sockstate.events AS
SELECT
    parseDateTime64BestEffort(JSONExtractString(record, 'time'), 9, 'UTC') AS time,
    JSONExtractString(record, 'host', 'name') AS host,
    JSONExtractString(record, 'instance') AS instance,
    JSONExtractUInt(record, 'seq') AS seq,
    JSONExtractString(record, 'kind') AS kind,
    JSONExtractString(record, 'conn') AS conn,
    JSONExtractString(record, 'network', 'community_id') AS community_id,
    JSONExtractString(record, 'nat', 'community_id') AS nat_community_id,
    JSONExtractString(record, 'role') AS role,
    JSONExtractString(record, 'from') AS from_state,
    -- The state of the connection after the record.
    if(JSONHas(record, 'to'), JSONExtractString(record, 'to'), JSONExtractString(record, 'state')) AS to_state,
    JSONExtract(record, 'in_state_ns', 'Nullable(UInt64)') AS in_state_ns,
    JSONExtractBool(record, 'in_state_at_least') AS at_least,
    JSONExtract(record, 'age_ns', 'Nullable(UInt64)') AS age_ns,
    JSONExtractString(record, 'local', 'address') AS local_address,
    JSONExtractUInt(record, 'local', 'port') AS local_port,
    JSONExtractString(record, 'remote', 'address') AS remote_address,
    JSONExtractUInt(record, 'remote', 'port') AS remote_port,
    JSONExtractUInt(record, 'owner', 'pid') AS pid,
    JSONExtractString(record, 'owner', 'comm') AS comm,
    JSONExtractString(record, 'unit') AS unit,
    JSONExtractString(record, 'container', 'id') AS container_id,
    JSONExtractString(record, 'container', 'name') AS container_name,
    JSONExtractString(record, 'container', 'image') AS container_image,
    JSONExtractString(record, 'pod', 'uid') AS pod_uid,
    JSONExtractString(record, 'pod', 'name') AS pod_name,
    JSONExtractString(record, 'pod', 'namespace') AS pod_namespace,
    JSONExtractString(record, 'pod', 'workload', 'kind') AS workload_kind,
    JSONExtractString(record, 'pod', 'workload', 'name') AS workload_name,
    JSONExtract(record, 'pod', 'labels', 'Map(String, String)') AS pod_labels,
    JSONExtractString(record, 'cause') AS cause,
    JSONExtractString(record, 'errno') AS errno,
    JSONExtractString(record, 'place') AS place,
    JSONExtractUInt(record, 'count') AS count
FROM sockstate.ingest;

-- The last state of each end, to find the end that holds a connection. Rows are kept as long as somebody may ask for them.
CREATE TABLE IF NOT EXISTS sockstate.ends
(
    community_id String,
    host LowCardinality(String),
    conn String,
    nat_community_id SimpleAggregateFunction(max, String),
    state AggregateFunction(argMax, String, DateTime64(9, 'UTC')),
    comm AggregateFunction(argMax, String, DateTime64(9, 'UTC')),
    pid AggregateFunction(argMax, UInt32, DateTime64(9, 'UTC')),
    pod_namespace AggregateFunction(argMax, String, DateTime64(9, 'UTC')),
    pod_name AggregateFunction(argMax, String, DateTime64(9, 'UTC')),
    container_name AggregateFunction(argMax, String, DateTime64(9, 'UTC')),
    since SimpleAggregateFunction(max, DateTime64(9, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY (community_id, host, conn)
TTL toDateTime(since) + INTERVAL 30 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS sockstate.ends_of_events TO sockstate.ends AS
SELECT
    community_id,
    host,
    conn,
    max(events.nat_community_id) AS nat_community_id,
    argMaxState(toString(to_state), time) AS state,
    argMaxState(toString(comm), time) AS comm,
    argMaxState(pid, time) AS pid,
    argMaxState(toString(pod_namespace), time) AS pod_namespace,
    argMaxState(toString(pod_name), time) AS pod_name,
    argMaxState(toString(container_name), time) AS container_name,
    -- A `stuck` record comes later than the state that it is about.
    max(if(kind = 'stuck', subtractNanoseconds(time, ifNull(age_ns, 0)), time)) AS since
FROM sockstate.events
WHERE community_id != '' AND kind IN ('transition', 'snapshot', 'resync', 'stuck')
GROUP BY community_id, host, conn;

-- How long connections stay in each state. A row is an hour, a host, a program and a state: small enough to keep for a year.
CREATE TABLE IF NOT EXISTS sockstate.dwell
(
    hour DateTime('UTC'),
    host LowCardinality(String),
    comm LowCardinality(String),
    state LowCardinality(String),
    times AggregateFunction(quantilesTDigest(0.5, 0.9, 0.99), Float64),
    connections SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
ORDER BY (hour, host, comm, state)
TTL hour + INTERVAL 1 YEAR;

CREATE MATERIALIZED VIEW IF NOT EXISTS sockstate.dwell_of_events TO sockstate.dwell AS
SELECT
    toStartOfHour(toDateTime(time, 'UTC')) AS hour,
    host,
    comm,
    from_state AS state,
    quantilesTDigestState(0.5, 0.9, 0.99)(assumeNotNull(in_state_ns) / 1e9) AS times,
    count() AS connections
FROM sockstate.events
WHERE kind = 'transition' AND in_state_ns IS NOT NULL AND NOT at_least
GROUP BY hour, host, comm, state;

-- One row per connection: the last of its records of the kind `connection`. Earlier ones, of a connection that went on, and a record
-- that was delivered twice are replaced in the end.
CREATE TABLE IF NOT EXISTS sockstate.connections
(
    time DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    begin DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    host LowCardinality(String),
    instance LowCardinality(String),
    seq UInt64 CODEC(Delta, ZSTD),
    conn String,
    -- False: it goes on.
    is_final Bool,
    -- How many connections the row stands for: more than 1 with the key `sample` of the sink.
    sample UInt64,
    community_id String,
    nat_community_id String,
    role LowCardinality(String),
    local_address String,
    local_port UInt16,
    remote_address String,
    remote_port UInt16,
    pid UInt32,
    comm LowCardinality(String),
    unit LowCardinality(String),
    container_name LowCardinality(String),
    pod_name LowCardinality(String),
    pod_namespace LowCardinality(String),
    peer_name LowCardinality(String),
    peer_namespace LowCardinality(String),
    duration_ns UInt64,
    handshake_ns Nullable(UInt64),
    at_least Bool,
    incomplete Bool,
    states Array(LowCardinality(String)),
    closed_first LowCardinality(String),
    cause LowCardinality(String),
    errno LowCardinality(String),
    bytes_sent Nullable(UInt64),
    bytes_received Nullable(UInt64),
    segments_sent Nullable(UInt32),
    segments_received Nullable(UInt32),
    retransmits Nullable(UInt32),
    rtt_smoothed_ns Nullable(UInt64),
    rtt_min_ns Nullable(UInt64),
    unread_bytes Nullable(UInt64),
    INDEX by_community_id community_id TYPE bloom_filter GRANULARITY 4
)
ENGINE = ReplacingMergeTree(time)
PARTITION BY toDate(time)
ORDER BY (host, conn)
TTL toDateTime(time) + INTERVAL 30 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS sockstate.connections_of_ingest TO sockstate.connections AS
SELECT
    parseDateTime64BestEffort(JSONExtractString(record, 'time'), 9, 'UTC') AS time,
    parseDateTime64BestEffort(JSONExtractString(record, 'begin'), 9, 'UTC') AS begin,
    JSONExtractString(record, 'host', 'name') AS host,
    JSONExtractString(record, 'instance') AS instance,
    JSONExtractUInt(record, 'seq') AS seq,
    JSONExtractString(record, 'conn') AS conn,
    JSONExtractRaw(record, 'final') != 'false' AS is_final,
    greatest(1, JSONExtractUInt(record, 'sample')) AS sample,
    JSONExtractString(record, 'network', 'community_id') AS community_id,
    JSONExtractString(record, 'nat', 'community_id') AS nat_community_id,
    JSONExtractString(record, 'role') AS role,
    JSONExtractString(record, 'local', 'address') AS local_address,
    JSONExtractUInt(record, 'local', 'port') AS local_port,
    JSONExtractString(record, 'remote', 'address') AS remote_address,
    JSONExtractUInt(record, 'remote', 'port') AS remote_port,
    JSONExtractUInt(record, 'owner', 'pid') AS pid,
    JSONExtractString(record, 'owner', 'comm') AS comm,
    JSONExtractString(record, 'unit') AS unit,
    JSONExtractString(record, 'container', 'name') AS container_name,
    JSONExtractString(record, 'pod', 'name') AS pod_name,
    JSONExtractString(record, 'pod', 'namespace') AS pod_namespace,
    JSONExtractString(record, 'peer', 'name') AS peer_name,
    JSONExtractString(record, 'peer', 'namespace') AS peer_namespace,
    JSONExtractUInt(record, 'duration_ns') AS duration_ns,
    JSONExtract(record, 'handshake_ns', 'Nullable(UInt64)') AS handshake_ns,
    JSONExtractBool(record, 'at_least') AS at_least,
    JSONExtractBool(record, 'incomplete') AS incomplete,
    arrayMap(step -> JSONExtractString(step, 'state'), JSONExtractArrayRaw(record, 'path')) AS states,
    JSONExtractString(record, 'closed_first') AS closed_first,
    JSONExtractString(record, 'cause') AS cause,
    JSONExtractString(record, 'errno') AS errno,
    JSONExtract(record, 'bytes', 'sent', 'Nullable(UInt64)') AS bytes_sent,
    JSONExtract(record, 'bytes', 'received', 'Nullable(UInt64)') AS bytes_received,
    JSONExtract(record, 'segments', 'sent', 'Nullable(UInt32)') AS segments_sent,
    JSONExtract(record, 'segments', 'received', 'Nullable(UInt32)') AS segments_received,
    JSONExtract(record, 'retransmits', 'Nullable(UInt32)') AS retransmits,
    JSONExtract(record, 'rtt', 'smoothed_ns', 'Nullable(UInt64)') AS rtt_smoothed_ns,
    JSONExtract(record, 'rtt', 'min_ns', 'Nullable(UInt64)') AS rtt_min_ns,
    JSONExtract(record, 'unread_bytes', 'Nullable(UInt64)') AS unread_bytes
FROM sockstate.ingest
WHERE JSONExtractString(record, 'kind') = 'connection';
