-- Which peers are reached badly? The share of the sent segments that were sent again, by host and peer.
SELECT
    host, remote_address, count(*) AS connections, sum(retransmits) AS sent_again, sum(segments_sent) AS segments,
    sum(retransmits) / sum(segments_sent) AS share
FROM connections
WHERE segments_sent > 0
GROUP BY host, remote_address
HAVING sum(retransmits) > 0
ORDER BY share DESC, host, remote_address
LIMIT 20
