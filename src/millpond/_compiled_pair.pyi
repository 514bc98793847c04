# What _compiled_pair.c makes: methods that take the places of Python's, and what is awaited.

from collections.abc import Generator
from typing import Any, final

@final
class Checkout(Generator[Any, Any, Any]):
    def send(self, value: Any, /) -> Any: ...
    def throw(self, *arguments: Any) -> Any: ...

def learn(names: dict[str, Any], /) -> bool: ...
