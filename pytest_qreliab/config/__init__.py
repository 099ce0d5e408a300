"""What was asked for: settings, cases, and YAML files with lines."""
