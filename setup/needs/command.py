"""Runs a program for a probe: bounded in time, and with what it printed when it fails."""

import os
import subprocess

# Debian keeps some of the programs here, which an ordinary user's PATH lacks.
ADMIN_FOLDERS = "/usr/sbin:/sbin"


class Failed(Exception):
    """A probe's program is missing, failed, or did not end in time. The text says which."""


def run(*words, seconds=30, folder=None, environment=None, text=None):
    """What the program prints. Raises Failed with the line of its complaint that names an error, else the last one."""
    variables = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:{ADMIN_FOLDERS}", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=folder,
            env=variables | (environment or {}),
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise Failed(f"{words[0]} is not there") from None
    except PermissionError:
        raise Failed(f"{words[0]} cannot be run") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{words[0]} did not end within {seconds} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        lines = [line for line in lines if "error" in line.lower()][:1] or lines[-1:]
        raise Failed(lines[0].strip() if lines else f"{words[0]} exited with {done.returncode}")
    return done.stdout
