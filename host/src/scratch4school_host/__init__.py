"""The program on the server, `scratch4schoolctl`; Ansible's modules and plugins use parts of it.

Standard library only; Python 3.10 or later. All imports within the package are relative, because Ansible copies it to a
host as `ansible.module_utils.scratch4school_host`. Only `cli` imports modules within a function. A long command must
have all of its code in memory before it waits for the lock: meanwhile a deploy may replace the program on the disk.
"""
