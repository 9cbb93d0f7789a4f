"""The local web page: what it does with files, without a browser and in a real one."""
