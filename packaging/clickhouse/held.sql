-- Which end holds the connection? The query finds connections that one end has closed and the other end has not.
SELECT holder.community_id, holder.host AS holder, holder.comm AS comm, holder.pid AS pid, peer.host AS waits, peer.state AS peer_state, holder.since AS since
FROM
(
    SELECT community_id, host, conn, argMaxMerge(state) AS state, argMaxMerge(comm) AS comm, argMaxMerge(pid) AS pid, max(since) AS since
    FROM sockstate.ends GROUP BY community_id, host, conn
) AS holder
INNER JOIN
(
    SELECT community_id, host, conn, argMaxMerge(state) AS state FROM sockstate.ends GROUP BY community_id, host, conn
) AS peer ON holder.community_id = peer.community_id
WHERE holder.conn != peer.conn AND holder.state = 'CLOSE_WAIT'
ORDER BY since, community_id
