"""Write docs/reliability.md: each promise, the tests that attack it, how many cases were tried, and what was found.

python scripts/write_reliability.py               the tests of the fast suite
python scripts/write_reliability.py --all         the long ones too, for an hour or two (`make reliability`)
python scripts/write_reliability.py --all --from ONE.xml TWO.xml
                                                  runs that were made before, by parts or of a part again:
                                                  pytest -m promise --junitxml=ONE.xml -o junit_family=xunit1 TESTS

Tests are marked with the promise that they attack (tests/promises.py). The exit code is 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.side_by_side.machine import describe_machine, sentence
from tests.promises import Promise

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reliability.md"
NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e[-+]?\d+)?$")
INTRODUCTION = """# Reliability

Written by `{command}` on {date} from the results of the tests; nothing here is typed by hand. {summary}

On {machine}

A case is one thing that a test tried: a text, a batch, a kill, a folder. A figure is the largest over all cases. {extent}
"""
FAST = "These are the tests of the fast suite; `make reliability` adds the long ones."
LONG = "These are the tests of the fast suite and the long ones."
FAMILY = ("-o", "junit_family=xunit1")  # the one that has properties of a test
EXIT_TESTS_FAILED = 1


@dataclass
class Attack:
    """What a test did to a promise, all its parameters taken together.

    Args:
        test: Its file and name.
        cases: How many cases it tried.
        figures: What it measured, in words, and the largest number for each.
        passed: With how many parameters it passed.
        failed: The messages of those that failed.
        skipped: Why others were skipped.
    """

    test: str
    cases: int = 0
    figures: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, case: ElementTree.Element, properties: Iterable[tuple[str, str]]) -> None:
        """Add what one run of the test reports."""
        bad = [*case.iterfind("failure"), *case.iterfind("error")]
        skipped = case.find("skipped")
        if bad:
            self.failed.append(_first_line(bad[0]))
        elif skipped is not None:
            self.skipped.append(_first_line(skipped))
            return
        else:
            self.passed += 1
        self.cases += int(dict(properties).get("cases", 1))
        for figure in (value for name, value in properties if name == "figure"):
            found = NUMBER.search(figure)
            words, number = (figure[: found.start()], found[0]) if found else (figure, "")
            self.figures[words] = max(self.figures.get(words, number), number, key=_value)

    def row(self) -> str:
        """Its line of the table."""
        verdict = [f"**{len(self.failed)} failed**: {self.failed[0]}"] if self.failed else []
        verdict += ["holds"] if self.passed and not self.failed else []
        verdict += [f"{len(self.skipped)} skipped: {self.skipped[0]}"] if self.skipped else []
        figures = ", ".join(words + number for words, number in self.figures.items())
        return f"| `{self.test}` | {self.cases:,} | {_cell(figures)} | {_cell('; '.join(verdict))} |"


def _value(number: str) -> float:
    return float(number.replace(",", "") or 0)


def _first_line(element: ElementTree.Element) -> str:
    return (element.get("message") or "no message").splitlines()[0][:200]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def read_attacks(*reports: Path) -> dict[Promise, list[Attack]]:
    """Read pytest's XML.

    Args:
        *reports: The files; what a test with these parameters did in a later one counts.

    Returns:
        For every promise the tests that attacked it.
    """
    found: dict[Promise, dict[str, Attack]] = {promise: {} for promise in Promise}
    cases = {
        (case.attrib["classname"], case.attrib["name"]): case
        for report in reports
        for case in ElementTree.parse(report).iter("testcase")
    }
    for case in cases.values():
        properties = [(one.attrib["name"], one.attrib["value"]) for one in case.iter("property")]
        test = _test(case)
        for promise in (Promise(value) for name, value in properties if name == "promise"):
            found[promise].setdefault(test, Attack(test)).add(case, properties)
    return {promise: list(attacks.values()) for promise, attacks in found.items()}


def _test(case: ElementTree.Element) -> str:
    """A test as pytest takes it: ``tests/test_a.py::test_b``."""
    parts = case.attrib["classname"].split(".")
    classes = [part for part in parts if part.startswith("Test")]
    file = "/".join(part for part in parts if part not in classes)
    return "::".join([f"{file}.py", *classes, case.attrib["name"].partition("[")[0]])


def page(attacks: dict[Promise, list[Attack]], command: str, machine: str, extent: str) -> str:
    """The page, in Markdown.

    Args:
        attacks: For every promise the tests that attacked it.
        command: What wrote the page.
        machine: On what they ran.
        extent: Which tests ran.

    Returns:
        The page.
    """
    every = [attack for tests in attacks.values() for attack in tests]
    failed = sum(bool(attack.failed) for attack in every)
    summary = f"{len(every)} tests tried {sum(attack.cases for attack in every):,} cases; " + (
        f"**{failed} of the tests failed.**" if failed else "all that ran hold."
    )
    lines = [INTRODUCTION.format(command=command, date=date.today(), summary=summary, machine=machine, extent=extent)]
    lines += [line for promise, tests in attacks.items() for line in _section(promise, tests)]
    return "\n".join(lines)


def _section(promise: Promise, tests: list[Attack]) -> Iterator[str]:
    yield f"## {promise.value}\n"
    if tests:
        yield "| test | cases | figure | result |\n|---|---|---|---|"
        yield from (attack.row() for attack in tests)
    else:
        yield "No test of this run attacks it."
    yield ""


def run_tests(report: Path, long: bool) -> None:
    """Run the tests that attack a promise.

    Args:
        report: Where pytest's XML goes.
        long: Whether to run the long ones too.

    """
    chosen = "promise and not real" if long else "promise and not slow and not real"
    command = [sys.executable, "-m", "pytest", "-q", "-m", chosen, f"--junitxml={report}", *FAMILY, "tests"]
    code = subprocess.run([*command, "-o", "faulthandler_timeout=0"] if long else command, cwd=ROOT).returncode
    if code not in (0, EXIT_TESTS_FAILED):
        sys.exit(f"pytest ended with exit code {code}, so that there are no results to write; see what it says above.")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--all", action="store_true", help="the long tests too")
    arguments.add_argument("--from", dest="reports", nargs="+", type=Path, metavar="XML", help="reports that are there")
    given = arguments.parse_args()
    machine = describe_machine(threads=1)
    if given.reports:
        del machine["load_before"]  # it was measured now
        attacks = read_attacks(*given.reports)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run_tests(Path(folder) / "report.xml", given.all)
            attacks = read_attacks(Path(folder) / "report.xml")
    name = "python scripts/write_reliability.py" + " --all" * given.all
    TARGET.write_text(page(attacks, name, sentence(machine), LONG if given.all else FAST), encoding="utf-8")
    sys.exit(any(attack.failed for tests in attacks.values() for attack in tests))


if __name__ == "__main__":
    main()
