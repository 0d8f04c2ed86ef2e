"""The configuration: from one YAML file to checked structs, one room for each step."""
