-- Which peers answer slowly? The time from the first SYN to ESTABLISHED of clients: the median, and the time that 99 of 100
-- connections do not exceed, in seconds.
SELECT host, remote_address, remote_port, count(*) AS connections, quantile_cont(handshake_ns / 1e9, [0.5, 0.99]) AS quantiles
FROM connections
WHERE role = 'client' AND handshake_ns IS NOT NULL
GROUP BY host, remote_address, remote_port
ORDER BY quantiles[2] DESC, host, remote_address, remote_port
LIMIT 20
