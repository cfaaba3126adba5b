"""Cells of inet, cidr, macaddr and macaddr8.

Pure: no I/O, no clock. As psycopg does it, an inet without mask is an address and one with a mask an interface; a
cidr is a network. MAC addresses are text. The manual: "Data Types", Network Address Types.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TypeAlias

from cdc.values.binary import Reader
from cdc.values.equality import quoted

__all__ = ["cidr_of", "cidr_of_binary", "inet_of", "inet_of_binary", "mac_of_binary"]

_Inet: TypeAlias = "IPv4Address | IPv6Address | IPv4Interface | IPv6Interface"
_Cidr: TypeAlias = "IPv4Network | IPv6Network"

_MASK_BITS = {2: 32, 3: 128}  # the server's numbers of the two families, and how many bits an address has
_MAC_SIZES = (6, 8)


def inet_of(cell: bytes) -> _Inet:
    """The address of a cell, or the interface when it has a mask. Raises ValueError."""
    text = cell.decode()
    return ip_interface(text) if "/" in text else ip_address(text)


def cidr_of(cell: bytes) -> _Cidr:
    """The network of a cell. Raises ValueError."""
    return ip_network(cell.decode())


def inet_of_binary(cell: bytes) -> _Inet:
    """As `inet_of`, of a cell in binary form. Raises ValueError."""
    address, bits = _parts(cell)
    if bits == len(address) * 8:
        return ip_address(address)
    interface: Callable[[tuple[bytes, int]], _Inet] = IPv4Interface if len(address) == 4 else IPv6Interface
    return interface((address, bits))


def cidr_of_binary(cell: bytes) -> _Cidr:
    """As `cidr_of`, of a cell in binary form. Raises ValueError."""
    address, bits = _parts(cell)
    network: Callable[[tuple[bytes, int]], _Cidr] = IPv4Network if len(address) == 4 else IPv6Network
    return network((address, bits))


def _parts(cell: bytes) -> tuple[bytes, int]:
    """Address and mask: Int8 family, Int8 bits of the mask, Int8 whether cidr, Int8 length, then the address."""
    reader = Reader(cell)
    family, bits, _, size = (reader.unsigned(1) for _ in range(4))
    address = reader.take(size)
    reader.end()
    if size * 8 != _MASK_BITS.get(family) or bits > size * 8:
        raise ValueError(f"{quoted(cell)} is not a network address in binary form")
    return address, bits


def mac_of_binary(cell: bytes) -> str:
    """The text of a macaddr or macaddr8 cell in binary form. Raises ValueError."""
    if len(cell) not in _MAC_SIZES:
        raise ValueError(f"{quoted(cell)} is not a MAC address in binary form")
    return cell.hex(":")
