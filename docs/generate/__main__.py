"""`python -m docs.generate [--check]`: write the generated files of `docs/`, or report which of them differ."""

import sys

from docs.generate.files import differing, generated, write


def main() -> None:
    """Write, or with `--check` compare and exit with 1 when a file differs."""
    files = generated()
    if sys.argv[1:] == ["--check"]:
        wrong = differing(files)
        for path in wrong:
            sys.stderr.write(f"{path} is out of date: run `make docs-reference`\n")
        sys.exit(bool(wrong))
    for path in write(files):
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
