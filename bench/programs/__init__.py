"""Programs that the benchmarks run by their path, some of them with other interpreters. None imports another one."""
