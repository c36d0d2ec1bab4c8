"""Typed access to the attributes that Optuna keeps of a trial or a study: JSON values by key, in two tables.

User attributes are for people and other tools; system attributes are Optuna's own, and what samplers must see.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, overload

T = TypeVar("T")

Kind = Literal["user", "system"]


@dataclass(frozen=True)
class Entry:
    """The value of an attribute, to be written."""

    kind: Kind
    key: str
    value: Any
    """JSON types."""


class HasAttributes(Protocol):
    """What has attributes of both kinds: a trial of Optuna's."""

    @property
    def user_attrs(self) -> dict[str, Any]:
        """User attributes by key."""

    @property
    def system_attrs(self) -> dict[str, Any]:
        """System attributes by key."""


class Attributes:
    """All attributes of one trial or study. Subclasses list the known ones; reading one that is not set gives None."""

    def __init__(self, user: Mapping[str, Any], system: Mapping[str, Any]) -> None:
        self.user, self.system = user, system

    @classmethod
    def of(cls, trial: HasAttributes) -> Self:
        """Return the attributes of a trial of Optuna's."""
        return cls(trial.user_attrs, trial.system_attrs)

    def values(self, kind: Kind) -> Mapping[str, Any]:
        """Return the stored values of one kind, by key."""
        return self.user if kind == "user" else self.system

    @property
    def unknown(self) -> dict[str, Any]:
        """User attributes that were written by other tools, by key."""
        known = {each.key for each in known_attributes(type(self)) if each.kind == "user"}
        return {key: value for key, value in self.user.items() if key not in known}


class Attribute(Generic[T]):
    """One attribute: its key in the store, its kind and its type.

    Read through an instance of `Attributes`, it gives the value or None; on the class itself it is the attribute, for
    its key and for writing: `TrialAttributes.baseline.entry("a")`.
    """

    def __init__(
        self,
        kind: Kind,
        key: str,
        value_type: type[T],
        *,
        decode: Callable[[Any], T] | None = None,
        encode: Callable[[T], Any] | None = None,
    ) -> None:
        """`decode` and `encode` translate from and to JSON types; None where the type is one of those."""
        self.kind, self.key, self.value_type = kind, key, value_type
        self._decode, self._encode = decode, encode

    @overload
    def __get__(self, instance: None, owner: type[Attributes]) -> "Attribute[T]": ...
    @overload
    def __get__(self, instance: Attributes, owner: type[Attributes]) -> T | None: ...
    def __get__(self, instance: Attributes | None, owner: type[Attributes]) -> "Attribute[T] | T | None":
        if instance is None:
            return self
        value = instance.values(self.kind).get(self.key)
        return value if value is None or self._decode is None else self._decode(value)

    def entry(self, value: T) -> Entry:
        """Return a value of this attribute, to be written."""
        return Entry(self.kind, self.key, value if self._encode is None else self._encode(value))


class AttributeGroup(Generic[T]):
    """All attributes whose keys begin alike: a mapping from the rest of the key to the value."""

    def __init__(self, kind: Kind, prefix: str) -> None:
        self.kind, self.prefix = kind, prefix

    @overload
    def __get__(self, instance: None, owner: type[Attributes]) -> "AttributeGroup[T]": ...
    @overload
    def __get__(self, instance: Attributes, owner: type[Attributes]) -> dict[str, T]: ...
    def __get__(self, instance: Attributes | None, owner: type[Attributes]) -> "AttributeGroup[T] | dict[str, T]":
        if instance is None:
            return self
        values = instance.values(self.kind).items()
        return {key.removeprefix(self.prefix): value for key, value in values if key.startswith(self.prefix)}

    def entry(self, name: str, value: T) -> Entry:
        """Return the value of the attribute with this name, to be written."""
        return Entry(self.kind, self.prefix + name, value)


def known_attributes(owner: type[Attributes]) -> list[Attribute[Any]]:
    """Return the attributes that a class lists, without groups, in its order."""
    return [each for each in vars(owner).values() if isinstance(each, Attribute)]


def user(key: str, value_type: type[T]) -> Attribute[T]:
    """Return a user attribute of a type that JSON has."""
    return Attribute("user", key, value_type)


def system(key: str, value_type: type[T]) -> Attribute[T]:
    """Return a system attribute of a type that JSON has."""
    return Attribute("system", key, value_type)


def structured(key: str, record_type: type[T]) -> Attribute[T]:
    """Return a user attribute that is a JSON object, read as a dataclass."""
    names = [field.name for field in dataclasses.fields(record_type)]  # type: ignore[arg-type]

    def decode(value: Any) -> T:
        return record_type(**{name: value[name] for name in names})

    return Attribute("user", key, record_type, decode=decode, encode=dataclasses.asdict)  # type: ignore[arg-type]
