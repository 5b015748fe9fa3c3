-- Which pods leak? The query counts the connections that are in CLOSE_WAIT now, by pod and container, largest count first.
SELECT pod_namespace AS namespace, pod_name AS pod, container_name AS container, count() AS connections, min(since) AS oldest
FROM
(
    SELECT
        community_id, host, conn, argMaxMerge(state) AS state, argMaxMerge(pod_namespace) AS pod_namespace,
        argMaxMerge(pod_name) AS pod_name, argMaxMerge(container_name) AS container_name, max(since) AS since
    FROM sockstate.ends GROUP BY community_id, host, conn
)
WHERE state = 'CLOSE_WAIT' AND pod_name != ''
GROUP BY namespace, pod, container
ORDER BY connections DESC, namespace, pod, container
