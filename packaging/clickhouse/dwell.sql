-- How long connections stay in each state: the median, and the times that 9 of 10 and 99 of 100 connections do not exceed, in
-- seconds.
SELECT host, comm, state, sum(connections) AS connections, quantilesTDigestMerge(0.5, 0.9, 0.99)(times) AS quantiles
FROM sockstate.dwell
GROUP BY host, comm, state
ORDER BY connections DESC, host, comm, state
