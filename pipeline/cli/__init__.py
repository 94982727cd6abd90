"""The command line. One module a command: parse, call one function, print, set the exit code.

Modules of commands import nothing heavy before a command runs, so that `neardup --help` is fast.
"""
