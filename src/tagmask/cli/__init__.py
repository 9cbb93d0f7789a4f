"""The command line, one file a group of commands; nothing else parses arguments or prints."""
