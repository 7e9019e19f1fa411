"""How many examples a property test tries."""

from typing import Any

from hypothesis import settings


def examples(share: float, **others: Any) -> settings:
    """Settings with ``share`` times the examples of the profile; tests/conftest.py has those."""
    chosen = settings.get_profile(settings.get_current_profile_name())
    return settings(chosen, max_examples=max(1, round(share * chosen.max_examples)), **others)
