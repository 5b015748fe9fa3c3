-- Both ends of each connection in one row: what the client sent and the server received, who closed first, and both causes.
-- Behind a translation, the id beyond it (nat_community_id) is the id of the other end.
SELECT DISTINCT
    client.time AS time, client.community_id AS community_id, client.host AS client, client.comm AS client_comm, server.host AS server,
    server.comm AS server_comm, client.handshake_ns AS handshake_ns, client.bytes_sent AS client_sent,
    server.bytes_received AS server_received, server.bytes_sent AS server_sent, client.bytes_received AS client_received,
    client.closed_first AS client_closed_first, client.cause AS client_cause, server.cause AS server_cause
FROM (SELECT *, unnest([community_id, nat_community_id]) AS id FROM connections) AS client
INNER JOIN (SELECT *, unnest([community_id, nat_community_id]) AS id FROM connections) AS server ON client.id = server.id
-- A later connection may have the same addresses and ports. The clocks of the hosts may differ.
WHERE client.role = 'client' AND server.role = 'server' AND abs(date_diff('second', client."begin", server."begin")) < 60
ORDER BY time, community_id
