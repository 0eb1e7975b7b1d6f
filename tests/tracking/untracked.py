"""What stands in a tracker's place in a training without one."""


class Untracked:
    """No tracker: the same calls, and nothing happens."""

    step = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def before(self, batch=None, *, epoch=None):
        pass

    def add(self, batch=None):
        pass

    def clipped(self, norm):
        pass

    def after(self, loss=None):
        pass
