-- Who leaks: connections in CLOSE_WAIT now, by host and program, the most first.
SELECT host, comm, count(*) AS connections, min(since) AS oldest
FROM ends
WHERE state = 'CLOSE_WAIT'
GROUP BY host, comm
ORDER BY connections DESC, host, comm
