"""What the catalog says of a type, as far as its cells depend on it.

Pure data. The manual: "System Catalogs", pg_type, pg_attribute, pg_range.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TypeInfo"]


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What the catalog says of a type.

    Attributes:
        oid: its OID.
        schema: name of its schema.
        name: typname.
        kind: typtype: `b` base, `d` domain, `c` composite, `e` enum, `r` range, `m` multirange, `p` pseudo.
        element: typelem when it is a true array (typcategory `A`), else 0.
        base: typbasetype of a domain, else 0.
        delimiter: typdelim.
        attributes: name and type's OID of each attribute of a composite type, in order.
        subtype: OID of the type of a range's or multirange's bounds, else 0.
        sends_text: whether the binary form of a base type is its text, as that of citext is.
        labels: an enum's labels in their order (enumsortorder).
        label_oids: their OIDs, which is what a constant of the enum is.
    """

    oid: int
    schema: str
    name: str
    kind: str
    element: int = 0
    base: int = 0
    delimiter: str = ","
    attributes: tuple[tuple[str, int], ...] = ()
    subtype: int = 0
    sends_text: bool = False
    labels: tuple[str, ...] = ()
    label_oids: tuple[int, ...] = ()

    @property
    def is_domain(self) -> bool:
        """Whether it is a domain."""
        return self.kind == "d"

    @property
    def is_composite(self) -> bool:
        """Whether it is a composite type, or the type of a table's rows."""
        return self.kind == "c"

    @property
    def is_enum(self) -> bool:
        """Whether it is an enum."""
        return self.kind == "e"

    @property
    def is_range(self) -> bool:
        """Whether it is a range whose bounds are known."""
        return self.kind == "r" and self.subtype != 0

    @property
    def is_multirange(self) -> bool:
        """Whether it is a multirange whose bounds are known."""
        return self.kind == "m" and self.subtype != 0

    @property
    def is_single_base(self) -> bool:
        """Whether it is a base type of its own, as extensions make them, and no array."""
        return self.kind == "b" and not self.element

    @property
    def is_text_in_binary(self) -> bool:
        """Whether its binary form is its text."""
        return self.is_enum or self.sends_text

    @property
    def parts(self) -> list[int]:
        """OIDs of the types that it is made of."""
        if self.is_domain:
            return [self.base]
        oids = [self.element, self.subtype, *(oid for _, oid in self.attributes)]
        return [oid for oid in oids if oid]
