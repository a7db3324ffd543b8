"""The kernels that run the notebooks."""

from typing import ClassVar

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec


class Kernel(AsyncKernelManager):
    """ipykernel of the running interpreter, whatever kernels are installed under which name."""

    environment: ClassVar[dict[str, str]] = {}

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.has_trait("transport_encryption"):  # else newer kernels warn in every notebook
            self.transport_encryption = "auto"

    @property
    def kernel_spec(self) -> KernelSpec:
        """Starts sys.executable."""
        return KernelSpec(env=self.environment, **get_kernel_dict())


def kernel(threads: int | None = None) -> type[Kernel]:
    """With so many threads, for notebooks that run side by side; None: as many as torch takes."""
    if threads is None:
        return Kernel
    # Threads that wait must not take the core from the other notebook.
    environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return type("Kernel", (Kernel,), {"environment": environment})
