"""Validates dbt artifacts with dbt-artifacts-parser, whose models refuse unknown keys and wrong types.

    validate_artifacts.py FILE …

Each file is manifest.json (v12), run_results.json (v6), catalog.json (v1) or sources.json (v3). Prints one line per file: its
name and how many entries it has. Exits with 1 and every violation when one is not valid.
"""

import json
import os
import sys

import pydantic
from dbt_artifacts_parser.parser import (
    parse_catalog_v1,
    parse_manifest_v12,
    parse_run_results_v6,
    parse_sources_v3,
)

PARSERS = {
    "manifest.json": (parse_manifest_v12, lambda m: len(m.nodes)),
    "run_results.json": (parse_run_results_v6, lambda r: len(r.results)),
    "catalog.json": (parse_catalog_v1, lambda c: len(c.nodes) + len(c.sources)),
    "sources.json": (parse_sources_v3, lambda s: len(s.results)),
}


def main():
    failed = False
    for path in sys.argv[1:]:
        name = os.path.basename(path)
        parse, count = PARSERS[name]
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        try:
            print(name, count(parse(data)))
        except pydantic.ValidationError as error:
            failed = True
            for problem in error.errors(include_url=False):
                place = ".".join(map(str, problem["loc"]))
                print(f"{name}: {place}: {problem['msg']}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
