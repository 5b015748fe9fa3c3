-- Who transfers most? The query adds the bytes of the connections by host, program and peer; of those that go
-- on, the bytes until their last record. In a sample, each connection stands for `sample` connections.
SELECT host, comm, remote_address, sum(sample) AS connections, sum(bytes_sent * sample) AS sent, sum(bytes_received * sample) AS received
FROM connections
GROUP BY host, comm, remote_address
ORDER BY coalesce(sent, 0) + coalesce(received, 0) DESC, host, comm, remote_address
LIMIT 20
