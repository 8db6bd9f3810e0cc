"""The demo's runs: four runs of small models on emoji, through the same trainer as everything else."""
