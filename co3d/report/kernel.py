"""The kernels that run the notebooks."""

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec


def kernel(threads: int | None = None) -> type[AsyncKernelManager]:
    """ipykernel of the running interpreter, whatever kernels are installed under which name.

    With so many threads, for notebooks that run side by side; None: as many as torch takes.
    """
    # Threads that wait must not take the core from the other notebook.
    few = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}

    class Kernel(AsyncKernelManager):
        kernel_spec = KernelSpec(env=few if threads else {}, **get_kernel_dict())

        def __init__(self, **kwargs) -> None:
            super().__init__(**kwargs)
            if self.has_trait("transport_encryption"):  # else newer kernels warn in every notebook
                self.transport_encryption = "auto"

    return Kernel
