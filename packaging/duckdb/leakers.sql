-- Which programs leak? The query counts the connections that are in CLOSE_WAIT now, by host and program, largest count first.
SELECT host, comm, count(*) AS connections, min(since) AS oldest
FROM ends
WHERE state = 'CLOSE_WAIT'
GROUP BY host, comm
ORDER BY connections DESC, host, comm
