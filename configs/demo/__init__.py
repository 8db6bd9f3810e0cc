"""The demo's runs: three small models on emoji, through the same trainer as everything else."""
