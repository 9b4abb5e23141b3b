"""``python -m fedtlu_fast`` is ``fedtlu``, where the command is not on the path."""

from fedtlu_fast.cli.main import main

if __name__ == "__main__":
    main()
