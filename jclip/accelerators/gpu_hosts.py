"""Hosts with NVIDIA GPUs: their possible shapes, their compile-only devices, and XLA's description of a GPU."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from jclip.accelerators.program_memory import program_bytes
from jclip.accelerators.shapes import Shape

_MOST_HOSTS = 1024


@dataclass(frozen=True)
class Architecture:
    """Facts that all data-center GPUs of a compute capability share.

    Attributes:
      capability: compute capability (major, minor).
      shared_memory: bytes of shared memory of a multiprocessor. A block may use 1 KiB less from compute capability 8.0.
      lanes: number of float32 units of a multiprocessor.
    """

    capability: tuple[int, int]
    shared_memory: int
    lanes: int


VOLTA = Architecture((7, 0), 96 << 10, 64)
AMPERE = Architecture((8, 0), 164 << 10, 64)
HOPPER = Architecture((9, 0), 228 << 10, 128)
BLACKWELL = Architecture((10, 0), 228 << 10, 128)


@dataclass(frozen=True)
class Gpu:
    """One GPU, as XLA's compiler needs to know it.

    Attributes:
      name: name that the driver gives it.
      architecture: facts of its compute capability.
      multiprocessors: number of streaming multiprocessors.
      clock: boost clock, GHz.
      memory: bytes that the driver reports.
      bandwidth: B/s of the memory.
      cache: bytes of the L2 cache.
    """

    name: str
    architecture: Architecture
    multiprocessors: int
    clock: float
    memory: int
    bandwidth: float
    cache: int

    def description(self) -> str:
        """Returns the GPU as a GpuTargetConfigProto of XLA, in text form.

        XLA's `stream_executor/device_description.proto` has the fields. The limits that are equal on all of these GPUs
        are from the table of compute capabilities in NVIDIA's CUDA programming guide.
        """
        shared, (major, minor) = self.architecture.shared_memory, self.architecture.capability
        accelerated = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024
              threads_per_warp: 32
              shared_memory_per_block: 49152
              shared_memory_per_core: {shared}
              shared_memory_per_block_optin: {shared - (1024 if major >= 8 else 0)}
              threads_per_core_limit: 2048
              core_count: {self.multiprocessors}
              fpus_per_core: {self.architecture.lanes}
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
class GpuHosts:
    """Equal hosts with GPUs. A host's GPUs have links to each other. A shape is (GPUs,) of one host, or (hosts, GPUs).

    Attributes:
      gpu: the GPU.
      largest: number of GPUs of a whole host.
    """

    gpu: Gpu
    largest: int = 8

    modules: ClassVar[tuple[str, ...]] = ("jax_cuda12_plugin",)
    # Autotuning needs a device. Without it, XLA finds no tiles for Triton's matrix products.
    flags: ClassVar[tuple[str, ...]] = ("--xla_gpu_autotune_level=0", "--xla_gpu_enable_triton_gemm=false")

    @property
    def possible(self) -> str:
        """Possible shapes, as text."""
        return f"1 to {self.largest} devices of one host, or HOSTSxDEVICES such as 2x{self.largest}"

    def has(self, shape: Shape) -> bool:
        """Returns True if this shape is possible."""
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
        """Returns the bytes that a compiled program needs on a device.

        XLA allocates all temporaries as one block. When it compiles, it does not compare them with the device's memory.
        """
        return program_bytes(memory)

    def compile_only(self, name: str, shape: Shape) -> list[jax.Device]:
        """Returns compile-only devices of all hosts, host by host. Loads jax's CUDA plugin into this process."""
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
