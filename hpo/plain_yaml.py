"""YAML without aliases, which make a few bytes into any number of values, and without tags for Python's objects."""

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Takes plain types alone, each value written out."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases (*name) are not taken: write the value out")
        return super().compose_node(parent, index)


def load(text: str) -> Any:
    """Return the value of a YAML document. Raises: ValueError for an alias or what is not YAML; RecursionError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def dump(content: Any) -> str:
    """Return plain types as a YAML document, in their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
