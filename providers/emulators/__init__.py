"""Providers to try things with: small HTTP servers that behave as the providers' documents say.

Each is written from its provider's documents and never from our adapter, which it exists to test.
"""

from importlib import import_module

from providers.emulators.server import Emulator

EMULATORS = {
    "ark": "providers.emulators.ark.ArkEmulator",
    "fal": "providers.emulators.fal.FalEmulator",
    "kie": "providers.emulators.kie.KieEmulator",
    "replicate": "providers.emulators.replicate.ReplicateEmulator",
}


def find(name: str) -> type[Emulator]:
    """Return the emulator class of this name.

    Raises:
        KeyError: there is none.
    """
    module, _, class_name = EMULATORS[name].rpartition(".")
    found: type[Emulator] = getattr(import_module(module), class_name)
    return found
