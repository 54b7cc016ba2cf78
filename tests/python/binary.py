"""The binary under test, as the suites run it."""

import subprocess
import sys


class Binary:
    """Runs `graft`; a suite that is one has a folder for what it makes."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def graft(self, *arguments):
        """Runs the binary; returns what it writes to stdout."""
        command = [self.binary, "--quiet", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"FAILED ({done.returncode}): {' '.join(command)}\n{done.stderr}")
        return done.stdout
