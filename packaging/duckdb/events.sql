-- The records of one or many hosts as a view (docs/fleet.md). Set the variable `records` to the files, then read this script.
CREATE OR REPLACE VIEW events AS
SELECT
    rtrim(time, 'Z')::TIMESTAMP_NS AS time, host.name AS host, instance, seq, kind, conn, network.community_id AS community_id,
    nat.community_id AS nat_community_id, role,
    "from" AS from_state, coalesce("to", state) AS to_state, in_state_ns, coalesce(in_state_at_least, false) AS at_least, age_ns,
    local.address AS local_address, local.port AS local_port, remote.address AS remote_address, remote.port AS remote_port,
    owner.pid AS pid, owner.comm AS comm, unit, container.id AS container_id,
    container.name AS container_name, container.image AS container_image, pod.uid AS pod_uid, pod.name AS pod_name,
    pod.namespace AS pod_namespace, pod.workload.kind AS workload_kind, pod.workload.name AS workload_name,
    pod.labels AS pod_labels, cause, errno, place, count
FROM read_json(getvariable('records'), format = 'newline_delimited', columns = {
    time: 'VARCHAR', host: 'STRUCT(name VARCHAR)', instance: 'VARCHAR', seq: 'UBIGINT', kind: 'VARCHAR', conn: 'VARCHAR',
    network: 'STRUCT(type VARCHAR, community_id VARCHAR)', nat: 'STRUCT(community_id VARCHAR)', role: 'VARCHAR',
    "from": 'VARCHAR', "to": 'VARCHAR', state: 'VARCHAR',
    in_state_ns: 'UBIGINT', in_state_at_least: 'BOOLEAN', age_ns: 'UBIGINT', local: 'STRUCT(address VARCHAR, port INTEGER)',
    remote: 'STRUCT(address VARCHAR, port INTEGER)', owner: 'STRUCT(pid UINTEGER, comm VARCHAR)', unit: 'VARCHAR',
    container: 'STRUCT(id VARCHAR, runtime VARCHAR, name VARCHAR, image VARCHAR)',
    pod: 'STRUCT(uid VARCHAR, name VARCHAR, namespace VARCHAR, workload STRUCT(kind VARCHAR, name VARCHAR), labels MAP(VARCHAR, VARCHAR))',
    cause: 'VARCHAR', errno: 'VARCHAR', place: 'VARCHAR', count: 'UBIGINT'
});

-- The last state of each end of each connection.
CREATE OR REPLACE VIEW ends AS
SELECT
    community_id, host, conn, max(nat_community_id) AS nat_community_id, arg_max(to_state, time) AS state,
    arg_max(comm, time) AS comm, arg_max(pid, time) AS pid,
    arg_max(pod_namespace, time) AS pod_namespace, arg_max(pod_name, time) AS pod_name,
    arg_max(container_name, time) AS container_name,
    -- A `stuck` record comes later than the state that it is about.
    max(CASE WHEN kind = 'stuck' THEN (time - to_microseconds((age_ns // 1000)::BIGINT))::TIMESTAMP_NS ELSE time END) AS since
FROM events
WHERE community_id IS NOT NULL AND kind IN ('transition', 'snapshot', 'resync', 'stuck')
GROUP BY community_id, host, conn;

-- The connections: the last record of the kind `connection` of each. `is_final` is false for one that goes on.
CREATE OR REPLACE VIEW connections AS
SELECT
    rtrim(time, 'Z')::TIMESTAMP_NS AS time, rtrim("begin", 'Z')::TIMESTAMP_NS AS "begin", host.name AS host, instance, seq, conn,
    coalesce("final", true) AS is_final, coalesce(sample, 1) AS sample,
    network.community_id AS community_id, nat.community_id AS nat_community_id, role, local.address AS local_address, local.port AS local_port,
    remote.address AS remote_address, remote.port AS remote_port, owner.pid AS pid, owner.comm AS comm, unit,
    container.name AS container_name, pod.name AS pod_name, pod.namespace AS pod_namespace,
    peer.name AS peer_name, peer.namespace AS peer_namespace, duration_ns, handshake_ns,
    coalesce(at_least, false) AS at_least, coalesce(incomplete, false) AS incomplete,
    list_transform(path, lambda step: step.state) AS states, closed_first, cause, errno,
    bytes.sent AS bytes_sent, bytes.received AS bytes_received, segments.sent AS segments_sent,
    segments.received AS segments_received, retransmits, rtt.smoothed_ns AS rtt_smoothed_ns, rtt.min_ns AS rtt_min_ns, unread_bytes
FROM read_json(getvariable('records'), format = 'newline_delimited', columns = {
    time: 'VARCHAR', "begin": 'VARCHAR', host: 'STRUCT(name VARCHAR)', instance: 'VARCHAR', seq: 'UBIGINT', kind: 'VARCHAR',
    conn: 'VARCHAR', "final": 'BOOLEAN', sample: 'UBIGINT', network: 'STRUCT(type VARCHAR, community_id VARCHAR)',
    nat: 'STRUCT(community_id VARCHAR)', role: 'VARCHAR', local: 'STRUCT(address VARCHAR, port INTEGER)', remote: 'STRUCT(address VARCHAR, port INTEGER)',
    owner: 'STRUCT(pid UINTEGER, comm VARCHAR)', unit: 'VARCHAR', container: 'STRUCT(id VARCHAR, name VARCHAR)',
    pod: 'STRUCT(uid VARCHAR, name VARCHAR, namespace VARCHAR)', peer: 'STRUCT(name VARCHAR, namespace VARCHAR)', duration_ns: 'UBIGINT', handshake_ns: 'UBIGINT',
    at_least: 'BOOLEAN', incomplete: 'BOOLEAN', path: 'STRUCT(state VARCHAR, ns UBIGINT)[]', closed_first: 'VARCHAR',
    cause: 'VARCHAR', errno: 'VARCHAR', bytes: 'STRUCT(sent UBIGINT, received UBIGINT)',
    segments: 'STRUCT(sent UBIGINT, received UBIGINT)', retransmits: 'UBIGINT',
    rtt: 'STRUCT(smoothed_ns UBIGINT, min_ns UBIGINT)', unread_bytes: 'UBIGINT'
})
WHERE kind = 'connection'
QUALIFY row_number() OVER (PARTITION BY host.name, conn ORDER BY time DESC) = 1;
