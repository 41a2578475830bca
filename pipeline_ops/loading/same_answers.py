"""Whether a module that was replaced still gives the same answers: tried on random rows when the model is loaded."""

from typing import Any

TOLERANCE = 8  # machine epsilons, of values near 1 and above; other answers differ by a good part of these values
LEAST_TOLERANCE = 1e-4  # of float32, whose sums are longer than its machine epsilon says


def random_rows(weight: Any, *shape: int) -> Any:
    """Seeded, (*shape, size), of a weight's dtype and on its device; `size` is the weight's last: what its module reads."""
    import torch

    generator = torch.Generator(weight.device).manual_seed(0)
    return torch.randn(*shape, weight.shape[-1], generator=generator, dtype=weight.dtype, device=weight.device)


def is_near(answers: Any, expected: Any) -> bool:
    """True if two tensors differ by no more than rounding in their dtype."""
    import torch

    tolerance = max(TOLERANCE * torch.finfo(expected.dtype).eps, LEAST_TOLERANCE)
    return torch.allclose(answers.float(), expected.float(), rtol=tolerance, atol=tolerance)
