"""Steps of scenarios and benchmarks on lab hosts: run playbooks, log pupils in, cause faults, import installations."""
