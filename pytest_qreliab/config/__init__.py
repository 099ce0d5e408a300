"""YAML files of the user: benchmarks and thresholds, validated, with errors that point at file and line."""
