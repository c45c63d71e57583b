"""The one list that a person reads before anything is built."""

from .finding import INSTALL, MISSING, OK

WORDS = {OK: "ok", INSTALL: "install", MISSING: "MISSING"}


def line(finding):
    brings = " ".join(finding.packages) or ("rustup" if finding.toolchain else "")
    arrow = f"  → {brings}" if finding.state == INSTALL and brings else ""
    return f"  {WORDS[finding.state]:8} {finding.name:20} {finding.detail}{arrow}"


def table(goal, found):
    return "\n".join([f"What `make {goal}` needs:", *map(line, found)])


def remedies(found):
    """What a person has to do, in the order of the list; apt's packages as one command."""
    missing = [finding for finding in found if finding.state == MISSING]
    packages = sorted({name for finding in missing for name in finding.packages})
    lines = [f"{finding.name}: {finding.remedy}" for finding in missing if finding.remedy]
    if packages:
        lines.append(f"packages: as root, apt-get install --no-install-recommends {' '.join(packages)}")
    return lines
