"""The papers' recipes at full size."""
