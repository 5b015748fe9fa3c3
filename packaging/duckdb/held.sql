-- Which end holds the connection? The query finds connections that one end has closed and the other end has not.
SELECT holder.community_id, holder.host AS holder, holder.comm, holder.pid, peer.host AS waits, peer.state AS peer_state, holder.since
FROM ends AS holder
JOIN ends AS peer ON holder.community_id = peer.community_id AND holder.conn != peer.conn
WHERE holder.state = 'CLOSE_WAIT'
ORDER BY holder.since, holder.community_id
