-- Which end holds the connection? The query finds connections that one end has closed and the other end has not. Behind a
-- translation, the id beyond it (nat_community_id) is the id of the other end.
SELECT DISTINCT holder.community_id, holder.host AS holder, holder.comm AS comm, holder.pid AS pid, peer.host AS waits, peer.state AS peer_state, holder.since AS since
FROM
(
    SELECT
        community_id, host, conn, argMaxMerge(state) AS state, argMaxMerge(comm) AS comm, argMaxMerge(pid) AS pid, max(since) AS since,
        arrayJoin(arrayDistinct(arrayFilter(id -> id != '', [community_id, max(nat_community_id)]))) AS id
    FROM sockstate.ends GROUP BY community_id, host, conn
) AS holder
INNER JOIN
(
    SELECT
        host, conn, argMaxMerge(state) AS state,
        arrayJoin(arrayDistinct(arrayFilter(id -> id != '', [community_id, max(nat_community_id)]))) AS id
    FROM sockstate.ends GROUP BY community_id, host, conn
) AS peer ON holder.id = peer.id
WHERE holder.conn != peer.conn AND holder.state = 'CLOSE_WAIT'
ORDER BY since, community_id
