"""Where a model must run: profiles, facts about boards as data, each with its source."""

from __future__ import annotations

from edgetune.profile.matching import device_mismatches, honoured, mismatches, require_match, short_of_threads
from edgetune.profile.shipped import available_profiles, load_profile, nearest_profile, profiles_folder
from edgetune.profile.values import ModelCaps, Profile, Quantization, Runtime

__all__ = [
    "ModelCaps",
    "Profile",
    "Quantization",
    "Runtime",
    "available_profiles",
    "device_mismatches",
    "honoured",
    "load_profile",
    "mismatches",
    "nearest_profile",
    "profiles_folder",
    "require_match",
    "short_of_threads",
]
