"""Hosts with NVIDIA GPUs: their compile-only devices, and the description of a GPU that XLA's compiler asks for."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from jclip.accelerators.shapes import Shape

_MOST_HOSTS = 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU, as XLA's compiler needs to know it.

    Attributes:
      name: name that the driver gives it.
      capability: compute capability (major, minor).
      cores: number of streaming multiprocessors.
      clock: boost clock in GHz.
      memory: bytes that the driver reports.
      bandwidth: B/s of the memory.
      cache: bytes of the L2 cache.
      shared: bytes of shared memory of a multiprocessor; a block may use 1 KiB less, from compute capability 8.0 on.
      lanes: float32 units of a multiprocessor.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    clock: float
    memory: int
    bandwidth: float
    cache: int
    shared: int
    lanes: int

    def description(self) -> str:
        """Returns the GPU as text of XLA's GpuTargetConfigProto.

        The fields are those of `stream_executor/device_description.proto`. Limits that are equal on all of these GPUs
        are from the table of compute capabilities in NVIDIA's CUDA programming guide.
        """
        major, minor = self.capability
        accelerated = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024
              threads_per_warp: 32
              shared_memory_per_block: 49152
              shared_memory_per_core: {self.shared}
              shared_memory_per_block_optin: {self.shared - (1024 if major >= 8 else 0)}
              threads_per_core_limit: 2048
              core_count: {self.cores}
              fpus_per_core: {self.lanes}
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              thread_dim_limit_x: 1024
              thread_dim_limit_y: 1024
              thread_dim_limit_z: 64
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              memory_bandwidth: {self.bandwidth:.0f}
              l2_cache_size: {self.cache}
              clock_rate_ghz: {self.clock}
              device_memory_size: {self.memory}
              cuda_compute_capability {{ major: {major} minor: {minor} {accelerated} }}
              device_vendor: "NVIDIA Corporation"
              device_address_bits: 64
              ecc_enabled: true
              name: "{self.name}"
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 10 }}
            device_description_str: "{self.name}"
        """


@dataclass(frozen=True)
class Hosts:
    """Equal hosts with GPUs that are linked inside a host.

    Attributes:
      gpu: description of a GPU.
      largest: number of GPUs of a host.
    """

    gpu: Gpu
    largest: int = 8

    modules: ClassVar[tuple[str, ...]] = ("jax_cuda12_plugin",)
    # Autotuning needs a device. Without it, XLA finds no tiles for Triton's matrix products.
    flags: ClassVar[tuple[str, ...]] = ("--xla_gpu_autotune_level=0", "--xla_gpu_enable_triton_gemm=false")

    @property
    def possible(self) -> str:
        """Shapes that can be had, as text."""
        return f"1 to {self.largest} devices of one host, or HOSTSxDEVICES such as 2x{self.largest}"

    def has(self, shape: Shape) -> bool:
        """Returns True if hosts of this shape can be had."""
        return len(shape) in (1, 2) and 1 <= shape[-1] <= self.largest and 1 <= shape[0] <= _MOST_HOSTS

    def devices(self, shape: Shape) -> int:
        """Returns the number of devices of all hosts."""
        return shape[0] * shape[-1] if len(shape) == 2 else shape[0]

    def hosts(self, shape: Shape) -> int:
        """Returns the number of hosts."""
        return shape[0] if len(shape) == 2 else 1

    def with_devices(self, count: int) -> Shape | None:
        """Returns the smallest shape with at least `count` devices; None if there is none."""
        if count <= self.largest:
            return (max(count, 1),)
        hosts = -(-count // self.largest)
        return (hosts, self.largest) if hosts <= _MOST_HOSTS else None

    def needed(self, memory: Any) -> int:
        """Returns the bytes that a compiled program needs on a device: arguments, results and temporaries.

        XLA allocates all temporaries as one block, and does not compare them with the device's memory when it compiles.
        """
        results = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return int(memory.argument_size_in_bytes + results + memory.temp_size_in_bytes)

    def compile_only(self, name: str, shape: Shape) -> list[jax.Device]:
        """Returns compile-only devices of all hosts, in their order. Loads jax's CUDA plugin into this process."""
        from jax.experimental import topologies

        hosts, devices = shape if len(shape) == 2 else (1, shape[0])
        return list(
            topologies.get_topology_desc(
                self.gpu.name,
                platform="cuda",
                topology=f"1x{hosts}x{devices}",  # slices, hosts, devices of a host
                target_config=self.gpu.description(),
            ).devices
        )
