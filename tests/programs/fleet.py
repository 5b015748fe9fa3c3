"""Runs the fleet's queries, as docs/fleet.md has them, on records in an engine; prints each query's rows as JSON."""

import json
import pathlib
import sys

engine, packaging, *records = sys.argv[1:]
packaging = pathlib.Path(packaging)
queries = ["held", "leakers", "pods", "dwell", "talkers", "handshakes", "retransmits", "both"]
rows = {}
if engine == "duckdb":
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET VARIABLE records = ?", [records])
    connection.execute((packaging / "duckdb/events.sql").read_text())
    for query in queries:
        cursor = connection.execute((packaging / f"duckdb/{query}.sql").read_text())
        names = [column[0] for column in cursor.description]
        rows[query] = [dict(zip(names, row)) for row in cursor.fetchall()]
else:
    from chdb import session

    clickhouse = session.Session()
    schema = "\n".join(
        line for line in (packaging / "clickhouse/schema.sql").read_text().splitlines() if not line.startswith("--")
    )
    for statement in filter(str.strip, schema.split(";")):
        clickhouse.query(statement)
    # As a collector that delivers at least once does: everything twice.
    for file in records * 2:
        clickhouse.query(f"INSERT INTO sockstate.ingest SELECT * FROM file('{file}', 'LineAsString')")
    for query in queries:
        text = (packaging / f"clickhouse/{query}.sql").read_text()
        rows[query] = [json.loads(line) for line in str(clickhouse.query(text, "JSONEachRow")).splitlines()]
    rows["events"] = int(str(clickhouse.query("SELECT count() FROM sockstate.events FINAL", "CSV")))
print(json.dumps(rows, default=str))
