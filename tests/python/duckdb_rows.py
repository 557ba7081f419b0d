"""Executes queries in DuckDB and prints their rows as canonical JSON, one line for each query.

Each line of the input is `{"setup": [SQL, …], "sql": SQL}`; everything that the setup made is gone after the query. A line of the
output is `{"columns": [name, …], "rows": [[value, …], …]}` or `{"error": text}`. Values:

    booleans, strings, NULL    JSON's own
    numbers                    a number; "NaN", "Infinity", "-Infinity" as text
    DATE, TIMESTAMP            "date " and days since 1970; "time " and µs since 1970
    STRUCT, MAP                an object
    ARRAY                      an array
"""

import datetime
import decimal
import json
import math
import sys

import duckdb

EPOCH = datetime.datetime(1970, 1, 1)


def canonical(value):
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.datetime):
        return f"time {(value - EPOCH) // datetime.timedelta(microseconds=1)}"
    if isinstance(value, datetime.date):
        return f"date {(value - EPOCH.date()).days}"
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    return value


for line in sys.stdin:
    case = json.loads(line)
    connection = duckdb.connect(config={"threads": 1})
    # As Postgres and DataFusion have it.
    connection.execute("SET default_null_order = 'NULLS_LAST_ON_ASC_FIRST_ON_DESC'")
    try:
        for statement in case["setup"]:
            connection.execute(statement)
        result = connection.execute(case["sql"])
        columns = [column[0] for column in result.description]
        rows = [[canonical(value) for value in row] for row in result.fetchall()]
        print(json.dumps({"columns": columns, "rows": rows}))
    except duckdb.Error as error:
        print(json.dumps({"error": str(error)}))
    connection.close()
