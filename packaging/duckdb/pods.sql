-- Which pods leak? The query counts the connections that are in CLOSE_WAIT now, by pod and container, largest count first.
SELECT pod_namespace AS namespace, pod_name AS pod, container_name AS container, count(*) AS connections, min(since) AS oldest
FROM ends
WHERE state = 'CLOSE_WAIT' AND pod_name IS NOT NULL
GROUP BY namespace, pod, container
ORDER BY connections DESC, namespace, pod, container
