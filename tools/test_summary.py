#!/usr/bin/env python3
"""Sums up several CTest runs: test_summary.py NAME=JUNIT_XML...

Lists failed tests, and skipped ones with their reason. The last line reads "N passed, N failed, N skipped" over all runs.
Exits 1 if a test failed, or if a run did not happen.
"""
import collections
import re
import sys
import xml.etree.ElementTree as ET


def outcome(case: ET.Element) -> str:
    if case.get("status") == "run":
        return "passed"
    # CTest calls a skipped test "notrun", and one that it could not start as well; only the first has a known message.
    message = case.find("skipped").get("message", "") if case.find("skipped") is not None else ""
    if case.get("status") == "disabled" or message.startswith("SKIP_"):
        return "skipped"
    return "failed"


def reason(case: ET.Element) -> str:
    """What the test said when it skipped: GoogleTest's line after "FILE:LINE: Skipped", or a line "skipped: ..."."""
    if case.get("status") == "disabled":
        return "disabled"
    output = case.findtext("system-out") or ""
    said = re.search(r": Skipped\n(\S.*?)\n(?:\n|\[  SKIPPED)", output, re.DOTALL) or re.search(r"^skipped: (.+)", output, re.MULTILINE)
    return " ".join(said.group(1).split()) if said else "no reason given"


def read_run(name: str, path: str) -> list[tuple[str, str, str]]:
    """(outcome, test, reason) of every test of a run."""
    try:
        cases = ET.parse(path).getroot().findall("testcase")
    except (OSError, ET.ParseError) as error:
        return [("failed", f"{name}: the run itself", str(error))]
    if not cases:
        return [("failed", f"{name}: the run itself", "no tests")]
    return [(outcome(case), f"{name}: {case.get('name')}", reason(case)) for case in cases]


def main(arguments: list[str]) -> int:
    results = [result for argument in arguments for result in read_run(*argument.split("=", 1))]
    count = collections.Counter(result for result, _, _ in results)
    print()
    for result, test, why in results:
        if result == "skipped":
            print(f"skipped  {test}: {why}")
    for result, test, _ in results:
        if result == "failed":
            print(f"FAILED   {test}")
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 0 if count["passed"] and not count["failed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
