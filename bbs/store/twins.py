"""Classes of msgspec's own with the fields of a model, made from it: stored JSON becomes the JSON of an answer in C.

What a twin of a model writes is byte for byte what `wire.encode` writes of the model: the same fields in the same
order, defaults where what is stored is older than a field, every secret as `***`. No limit is checked: we wrote it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, assert_never

import attrs
import msgspec

from diego_py import wire
from diego_py.models.shapes import (
    Anything,
    Choice,
    Hidden,
    Maybe,
    Moment,
    Noun,
    Plain,
    Sequence,
    Shape,
    Table,
    fields_of,
    is_one_of,
)
from diego_py.secret import REDACTED, Secret


def decoder_of(noun: type[Any]) -> msgspec.json.Decoder[Any]:
    """Reads the stored JSON of a noun as its twin. Raises msgspec.ValidationError for what the noun cannot be."""
    return msgspec.json.Decoder(_Twins().of(noun), dec_hook=_hide)


def row_of(noun: type[Any]) -> type[msgspec.Struct]:
    """A class that takes all fields of a noun by position, each a value that is plain already or a twin."""
    keys = [(field.key, Any) for field in fields_of(noun)]
    return msgspec.defstruct(noun.__name__, keys, gc=False)


class _Twins:
    """The twins of one noun and of all nouns in it, which may contain themselves."""

    def __init__(self) -> None:
        self.made: dict[type[Any], type[msgspec.Struct]] = {}

    def of(self, noun: type[Any]) -> type[msgspec.Struct]:
        if noun in self.made:
            return self.made[noun]
        fields, defaults = fields_of(noun), {each.name: each.default for each in attrs.fields(noun)}
        made = self.made[noun] = msgspec.defstruct(
            noun.__name__,
            [_field(field.name, defaults[field.name]) for field in fields],
            rename={field.name: field.key for field in fields if field.name != field.key},
            kw_only=True,
            omit_defaults=is_one_of(noun),
            gc=False,
        )
        # msgspec looks at annotations when the class is first used: by then every class that they name is there.
        made.__annotations__.update({field.name: self._type(field.shape) for field in fields})
        return made

    def _type(self, shape: Shape) -> Any:
        match shape:
            case Plain():
                return shape.type
            case Hidden():
                return Secret
            case Choice():
                return shape.type
            case Moment():
                return datetime
            case Anything():
                return msgspec.Raw
            case Maybe():
                return self._type(shape.inner) | None
            case Sequence():
                return list[self._type(shape.items)]  # type: ignore[misc]
            case Table():
                return dict[str, self._type(shape.values)]  # type: ignore[misc]
            case Noun():
                return self.of(shape.type)
            case _:
                assert_never(shape)


def _field(name: str, default: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    if default is attrs.NOTHING:
        return name, Any
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return name, Any, msgspec.field(default_factory=default.factory)
    plain = default if isinstance(default, Secret) else wire.to_builtins_revealed(default)
    return name, Any, tuple(plain) if isinstance(plain, list) else plain


_HIDDEN: Final = Secret(REDACTED)


def _hide(kind: type[Any], value: Any) -> Secret:
    """Every secret is the same one here: what it was is not even kept."""
    return _HIDDEN


def _tell(value: Any) -> str:
    if isinstance(value, Secret):
        return REDACTED
    raise TypeError(f"a {type(value).__name__} cannot become JSON")


ENCODER: Final = msgspec.json.Encoder(enc_hook=_tell)
"""Writes rows and twins."""
