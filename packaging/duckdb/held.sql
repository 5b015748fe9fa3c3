-- Which end holds the connection? The query finds connections that one end has closed and the other end has not. Behind a
-- translation, the id beyond it (nat_community_id) is the id of the other end.
SELECT DISTINCT holder.community_id, holder.host AS holder, holder.comm, holder.pid, peer.host AS waits, peer.state AS peer_state, holder.since
FROM (SELECT *, unnest([community_id, nat_community_id]) AS id FROM ends) AS holder
JOIN (SELECT *, unnest([community_id, nat_community_id]) AS id FROM ends) AS peer ON holder.id = peer.id AND holder.conn != peer.conn
WHERE holder.state = 'CLOSE_WAIT'
ORDER BY holder.since, holder.community_id
