-- How long connections stay in each state: the median, and the times that 9 of 10 and 99 of 100 connections do not exceed, in
-- seconds.
SELECT host, comm, from_state AS state, count(*) AS connections, quantile_cont(in_state_ns / 1e9, [0.5, 0.9, 0.99]) AS quantiles
FROM events
WHERE kind = 'transition' AND in_state_ns IS NOT NULL AND NOT at_least
GROUP BY host, comm, from_state
ORDER BY connections DESC, host, comm, state
