-- Who transfers most? The query adds the bytes of the connections that have ended, by host, program and peer.
SELECT host, comm, remote_address, count() AS connections, sum(bytes_sent) AS sent, sum(bytes_received) AS received
FROM sockstate.connections FINAL
GROUP BY host, comm, remote_address
ORDER BY coalesce(sent, 0) + coalesce(received, 0) DESC, host, comm, remote_address
LIMIT 20
