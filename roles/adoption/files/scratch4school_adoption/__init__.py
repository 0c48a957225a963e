"""An existing school comes over: looked at, rehearsed, brought over while it still runs, compared, and finished.

The old place is only read. Rows are the application's business (`scratch4school adopt`, in a container of its image),
files and the order of things are this program's. Runs on the host; standard library alone, Python 3.10 or later.
"""
