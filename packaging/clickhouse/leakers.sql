-- Which programs leak? The query counts the connections that are in CLOSE_WAIT now, by host and program, largest count first.
SELECT host, comm, count() AS connections, min(since) AS oldest
FROM
(
    SELECT community_id, host, conn, argMaxMerge(state) AS state, argMaxMerge(comm) AS comm, max(since) AS since
    FROM sockstate.ends GROUP BY community_id, host, conn
)
WHERE state = 'CLOSE_WAIT'
GROUP BY host, comm
ORDER BY connections DESC, host, comm
