"""AltCLIP's recipes at full size."""
