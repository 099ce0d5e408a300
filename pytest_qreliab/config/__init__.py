"""Settings, cases, and YAML files whose errors name the line."""
