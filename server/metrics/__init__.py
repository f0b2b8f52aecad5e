"""What the gateway counts of itself, of all its processes, in Prometheus' words. The only importer of its client."""
