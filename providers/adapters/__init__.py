"""The adapters by name; each is imported only when a channel uses it."""

from importlib import import_module

from providers.adapters.base import Adapter

ADAPTERS = {
    "sandbox": "providers.adapters.sandbox.SandboxAdapter",
    "ark": "providers.adapters.ark.ArkAdapter",
    "fal": "providers.adapters.fal.FalAdapter",
    "kie": "providers.adapters.kie.KieAdapter",
    "replicate": "providers.adapters.replicate.ReplicateAdapter",
}


def find(name: str) -> type[Adapter]:
    """Return the adapter class of this name.

    Raises:
        KeyError: there is none.
    """
    module, _, class_name = ADAPTERS[name].rpartition(".")
    found: type[Adapter] = getattr(import_module(module), class_name)
    return found
