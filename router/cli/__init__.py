"""The command ``pointsman`` and the subcommands of the proxy."""
