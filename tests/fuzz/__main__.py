"""``python -m tests.fuzz [--seconds 60]``: atheris on the parser and the guard."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

import atheris

from tests.support.pure import use_source

use_source()  # what is compiled does not tell where it has been
with atheris.instrument_imports(include=["greenfilter"]):
    from tests.fuzz.target import Input, check

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"
_MAX_BYTES = 16_384


def write_corpus(directory: Path) -> int:
    """Write what smtpd said in the recordings, as inputs; give their number."""
    inputs = set()
    for path in sorted(TRANSCRIPTS.glob("*/*.log")):
        lines = path.read_bytes().split(b"\n")
        wire = b"".join(line[2:] + b"\n" for line in lines if line.startswith(b"<"))
        for choice in (0, 3):
            inputs.add(Input.of(wire[: _MAX_BYTES - 2], cut=4 * choice, choice=choice))
    for data in inputs:
        (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return len(inputs)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="directory to keep what was found in")
    parser.add_argument("crash", nargs="*", help="inputs to try instead of fuzzing")
    options = parser.parse_args()
    if options.crash:
        for path in options.crash:
            check(Path(path).read_bytes())
        return
    with tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or Path(temporary)
        corpus.mkdir(exist_ok=True)
        print(f"{write_corpus(corpus)} inputs from recordings", flush=True)
        artifacts = Path(tempfile.mkdtemp(prefix="fuzz-"))
        arguments = [
            *(sys.argv[0], str(corpus), f"-max_total_time={options.seconds}"),
            *(f"-max_len={_MAX_BYTES}", f"-artifact_prefix={artifacts}/", "-timeout=10"),
            "-print_final_stats=1",
        ]
        atheris.Setup(arguments, check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
