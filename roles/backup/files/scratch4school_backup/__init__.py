"""Backups of Scratch4School: rows and files of one moment, read back before they count, restored, rehearsed every week.

Runs on the host under systemd or Ansible. restic, pg_dump and pg_restore run in containers of the backup image; what is
ours is the order of things, the proof, and the sentences. Standard library alone; Python 3.10 or later.
"""
