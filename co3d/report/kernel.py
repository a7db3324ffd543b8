"""The kernel that runs the notebooks."""

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec


class Kernel(AsyncKernelManager):
    """ipykernel of the running interpreter, whatever kernels are installed under which name."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.has_trait("transport_encryption"):  # else newer kernels warn in every notebook
            self.transport_encryption = "auto"

    @property
    def kernel_spec(self) -> KernelSpec:
        """Starts sys.executable."""
        return KernelSpec(**get_kernel_dict())
