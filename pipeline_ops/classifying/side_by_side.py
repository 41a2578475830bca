"""Whether passes of one kind of model may run at the same time, in threads of one process, each with modules of its own."""

import inspect
import re
import sys
from typing import Any

SEEDS = re.compile(r"manual_seed|np\.random|numpy\.random")  # BigBird and Reformer seed the process's generators in each pass


def may_run_side_by_side(model: Any) -> bool:
    """Whether what one pass leaves in the process cannot change another's answers, as far as the model's code shows it.

    Args:
        model: of transformers; code of its own may keep what it likes.
    """
    modules = {type(module).__module__ for module in model.modules()}
    sources = [name for name in modules if not name.startswith("torch.")]
    return all(name.startswith("transformers.") and not SEEDS.search(_source(name)) for name in sources)


def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        return "manual_seed"  # not known
