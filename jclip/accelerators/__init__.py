"""Accelerators that are not attached.

- `targets` lists them with published figures; `tpu_slices` and `gpu_hosts` say in which shapes they can be had.
- `compiler_process` starts a process (`worker`) with an accelerator's `compiler`.
- `account` counts what a compiled program does, from its HLO text, which `hlo_text` parses; `roofline` estimates the
  time from that.
- `peaks` has the peak rates of devices that are attached, too.
"""
