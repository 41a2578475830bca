"""Whether a module that was replaced still gives the same answers: tried on random rows when the model is loaded."""

from typing import Any

TOLERANCE = 8  # machine epsilons that answers may be off, as a share of them; another computation is off by a good part
LEAST_TOLERANCE = 1e-4  # of float32, whose sums are longer than its machine epsilon says


def random_rows(weight: Any, *shape: int) -> Any:
    """Seeded, (*shape, size), of a weight's dtype and on its device; `size` is the weight's last: what its module reads."""
    import torch

    generator = torch.Generator(weight.device).manual_seed(0)
    return torch.randn(*shape, weight.shape[-1], generator=generator, dtype=weight.dtype, device=weight.device)


def is_near(answers: Any, expected: Any) -> bool:
    """True if two tensors differ by no more than rounding in the dtype of `expected`, by the norm of their difference.

    Single elements may: of many thousands, some are off by several times what is usual.
    """
    import torch

    tolerance = max(TOLERANCE * torch.finfo(expected.dtype).eps, LEAST_TOLERANCE)
    off, size = (torch.linalg.vector_norm(one.float()) for one in (answers.float() - expected.float(), expected))
    return bool(off <= tolerance * size)  # not of NaN
