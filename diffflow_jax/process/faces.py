"""What decorators add to a class, told to type checkers and editors.

At run time the classes here are `object`: `schedule`, `node` and `wrapper` put
the methods there, and look for those that a class has of its own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from typing import Self

  import jax

  from diffflow_jax.process.levels import Level

  class Node:
    """A frozen pytree dataclass (`ranges.node`)."""

    def replace(self, **updates: Any) -> Self: ...

  class Schedule(Node):
    """What `schedule.schedule` completes."""

    def logsnr(self, t: Any) -> jax.Array: ...
    def pair(self, t: Any) -> tuple[jax.Array, jax.Array]: ...
    def t(self, logsnr: Any) -> jax.Array: ...
    def log_speed(self, logsnr: Any) -> jax.Array: ...

  class Wrapper(Node):
    """A predictor around another one (`guidance.wrappers.wrapper`)."""

    def __call__(
      self, z: Any, lv: Level, cond: Any = None
    ) -> tuple[jax.Array, jax.Array]: ...
    def prepare(self, lv: Level) -> Any: ...

else:
  Node = Schedule = Wrapper = object
