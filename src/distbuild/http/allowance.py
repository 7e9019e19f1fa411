"""How much memory large bodies may take together, on their way to one server and in its hands."""

#: A farm's results at once. A single body may have all of it.
MAX_AWAITED_BYTES = 512 * 1024 * 1024


class BodyBudget:
    """Has no lock, since it is asked for each large body: two that ask in the same moment may get
    a little more than there is."""

    def __init__(self, most: int = MAX_AWAITED_BYTES) -> None:
        self._most = most
        self._taken: dict[object, int] = {}

    def take(self, who: object, size: int) -> bool:
        """Have so many bytes in place of those that ``who`` has; False: too many are taken, and
        nothing has changed."""
        others = sum(list(self._taken.values())) - self._taken.get(who, 0)
        if others + size > self._most:
            return False
        self._taken[who] = size
        return True

    def give_back(self, who: object) -> None:
        """It needs none of its bytes any more."""
        self._taken.pop(who, None)
