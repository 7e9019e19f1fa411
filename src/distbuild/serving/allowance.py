"""How much memory the large bodies that are under way to one server may take together."""

#: A farm's results at once; a single body may have half of it.
MAX_AWAITED_BYTES = 1024 * 1024 * 1024


class Allowance:
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
