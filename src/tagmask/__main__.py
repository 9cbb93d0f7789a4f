"""``python -m tagmask``, as launchers of several processes want it."""

from tagmask.cli.main import main

if __name__ == "__main__":
    main()
