"""`python -m biggan`, the same as `biggan`."""

from biggan.cli import main

if __name__ == "__main__":
    main()
