"""One file on disk to an array, or one sentence why not; nothing else opens files that a user gave."""
