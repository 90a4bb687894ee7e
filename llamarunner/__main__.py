"""`python -m llamarunner` is `llamarunner`."""

from llamarunner.cli import main

if __name__ == "__main__":
    main()
