"""Reads Delta tables with another engine and prints canonical JSON, so that a test can compare engines.

    read_table.py ENGINE --table NAME=PATH … SQL …

ENGINE is `deltalake` (Python deltalake's QueryBuilder) or `duckdb` (its delta extension, from PyPI). Each SQL query sees
the tables under their names. The output is one JSON array per query, of rows as objects, in one line each. Rows are sorted by
their JSON text: engines promise no order. Values look the same whichever engine found them:

    integers, booleans, strings, NULL    JSON's own
    DECIMAL                              text with all digits of its scale: "12.50"
    DOUBLE, FLOAT                        a number; "NaN", "Infinity", "-Infinity" as text
    DATE                                 "2024-02-29"
    TIMESTAMP                            µs, UTC: "2024-02-29T12:00:00.000001Z"; without zone: no Z
    BINARY                               hexadecimal
    STRUCT, ARRAY, MAP                   object, array, array of [key, value]
"""

import argparse
import datetime
import decimal
import glob
import json
import math
import os
import sys


def canonical(value):
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        zone = ""
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
            zone = "Z"
        return value.isoformat(timespec="microseconds") + zone
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    return value


def with_deltalake(tables, queries):
    from deltalake import DeltaTable, QueryBuilder

    builder = QueryBuilder()
    for name, path in tables:
        builder = builder.register(name, DeltaTable(path))
    for query in queries:
        rows = []
        for batch in builder.execute(query):
            columns = [column.to_pylist() for column in batch.columns]
            rows += [dict(zip(batch.schema.names, row)) for row in zip(*columns)]
        yield rows


def with_duckdb(tables, queries):
    import duckdb
    import duckdb_extension_delta

    folder = os.path.dirname(duckdb_extension_delta.__file__)
    (extension,) = glob.glob(f"{folder}/**/delta.duckdb_extension", recursive=True)
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true", "autoinstall_known_extensions": "false"})
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    for name, path in tables:
        connection.execute(f"""CREATE VIEW "{name}" AS SELECT * FROM delta_scan('{path}')""")
    for query in queries:
        result = connection.execute(query)
        names = [column[0] for column in result.description]
        yield [dict(zip(names, row)) for row in result.fetchall()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=["deltalake", "duckdb"])
    parser.add_argument("--table", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("sql", nargs="+")
    arguments = parser.parse_args()
    tables = [table.split("=", 1) for table in arguments.table]
    read = {"deltalake": with_deltalake, "duckdb": with_duckdb}[arguments.engine]
    for rows in read(tables, arguments.sql):
        lines = sorted(json.dumps(canonical(row), sort_keys=True, ensure_ascii=False) for row in rows)
        sys.stdout.write("[" + ",".join(lines) + "]\n")


if __name__ == "__main__":
    main()
