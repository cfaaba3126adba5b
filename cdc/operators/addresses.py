"""inet, cidr and MAC addresses.

Pure: no I/O. An address with its mask is ordered by the bits of its network, then by their number, then by the rest.
A cidr and an inet have the same datum and differ in their text. The manual: "Data Types", Network Address Types.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import NamedTuple

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec, failing
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.orders import comparisons

__all__ = ["CODECS", "TABLE", "Address"]

_SIZES = {4: 32, 6: 128}
_PLAIN = re.compile(r"[0-9a-fA-F:.]+(?:/(?:0|[1-9][0-9]{0,2}))?")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}|[0-9a-fA-F]{2}(?:-[0-9a-fA-F]{2}){5}")
_MAC8 = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){7}")


class Address(NamedTuple):
    """An address with its mask; compared as PostgreSQL compares.

    Attributes:
        version: 4 or 6.
        network: the bits under the mask, as digits.
        number: the whole address.
    """

    version: int
    network: str
    number: int

    @property
    def bits(self) -> int:
        """The length of the mask."""
        return len(self.network)

    @property
    def size(self) -> int:
        """How many bits there are."""
        return _SIZES[self.version]

    @property
    def host_mask(self) -> int:
        """The bits that are not under the mask."""
        return (1 << (self.size - self.bits)) - 1


def _address(version: int, number: int, bits: int) -> Address:
    size = _SIZES[version]
    return Address(version, f"{number:0{size}b}"[:bits], number)


def _of_interface(interface: IPv4Interface | IPv6Interface) -> Address:
    return _address(interface.version, int(interface.ip), interface.network.prefixlen)


def _read(cell: bytes) -> Address:
    return _of_interface(ip_interface(cell.decode()))


def _input(context: Context, text: str) -> Address:
    if not text or not re.search("[0-9:]", text):
        raise failing("inet")
    try:
        if _PLAIN.fullmatch(text):
            return _of_interface(ip_interface(text))
    except ValueError:
        pass
    raise Undecided("a form of address")


def _cidr_input(context: Context, text: str) -> Address:
    address = _input(context, text)
    if address.number & address.host_mask:
        raise failing("cidr")
    return address


def _host(address: Address) -> str:
    if address.version == 4:
        return str(IPv4Address(address.number))
    if address.number >> 32 == 0xFFFF or (address.number >> 32 == 0 and address.number >> 16):
        mapped = "ffff:" if address.number >> 32 else ""
        return f"::{mapped}{IPv4Address(address.number & 0xFFFFFFFF)}"
    return str(IPv6Address(address.number))


def _full(address: Address) -> str:
    return f"{_host(address)}/{address.bits}"


def _text(context: Context, address: Address) -> str:
    return _host(address) if address.bits == address.size else _full(address)


def _mac_input(name: str, form: re.Pattern[str]) -> Callable[[Context, str], str]:
    def read(context: Context, text: str) -> str:
        if form.fullmatch(text):
            return text.lower().replace("-", ":")
        if not re.search("[0-9a-fA-F]", text):
            raise failing(name)
        raise Undecided("a form of MAC address")

    return read


def _same(context: Context, text: str) -> str:
    return text


CODECS = {
    869: Codec(_read, _input, _text),
    650: Codec(_read, _cidr_input, lambda context, address: _full(address)),
    829: Codec(bytes.decode, _mac_input("macaddr", _MAC), _same),
    774: Codec(bytes.decode, _mac_input("macaddr8", _MAC8), _same),
}


def _holds(outer: Address, inner: Address) -> bool:
    return outer.version == inner.version and inner.network.startswith(outer.network)


def _overlap(left: Address, right: Address) -> bool:
    return _holds(left, right) or _holds(right, left)


def _with(address: Address, number: int, bits: int | None = None) -> Address:
    return _address(address.version, number, address.bits if bits is None else bits)


def _with_bits(address: Address, bits: int) -> Address:
    bits = address.size if bits == -1 else bits
    if not 0 <= bits <= address.size:
        raise Failed("invalid mask length")
    return _with(address, address.number, bits)


def _network(address: Address) -> Address:
    return _with(address, address.number & ~address.host_mask)


def _network_with_bits(address: Address, bits: int) -> Address:
    return _network(_with_bits(address, bits))


def _moved(address: Address, distance: int) -> Address:
    number = address.number + distance
    if not 0 <= number < 1 << address.size:
        raise Failed("result is out of range")
    return _with(address, number)


def _moved_back(address: Address, distance: int) -> Address:
    if distance == -(2**63):
        raise Undecided("the least bigint, turned round")
    return _moved(address, -distance)


def _combined(operation: Callable[[int, int], int]) -> Builtin:
    def combine(left: Address, right: Address) -> Address:
        if left.version != right.version:
            raise Failed("addresses of different sizes")
        return _with(left, operation(left.number, right.number), max(left.bits, right.bits))

    return Builtin(combine)


_BOTH = "(inet, inet)"

TABLE: Table = {
    **comparisons("network_{}", "inet"),
    f"network_sub{_BOTH}": Builtin(lambda one, two: _holds(two, one) and one.bits > two.bits),
    f"network_subeq{_BOTH}": Builtin(lambda one, two: _holds(two, one)),
    f"network_sup{_BOTH}": Builtin(lambda one, two: _holds(one, two) and two.bits > one.bits),
    f"network_supeq{_BOTH}": Builtin(_holds),
    f"network_overlap{_BOTH}": Builtin(_overlap),
    f"inet_same_family{_BOTH}": Builtin(lambda one, two: one.version == two.version),
    f"inetand{_BOTH}": _combined(lambda one, two: one & two),
    f"inetor{_BOTH}": _combined(lambda one, two: one | two),
    "inetnot(inet)": Builtin(lambda address: _with(address, ~address.number & ((1 << address.size) - 1))),
    "inetpl(inet, bigint)": Builtin(_moved),
    "inetmi_int8(inet, bigint)": Builtin(_moved_back),
    "family(inet)": Builtin(lambda address: address.version),
    "masklen(inet)": Builtin(lambda address: address.bits),
    "host(inet)": Builtin(_host),
    "text(inet)": Builtin(_full),
    "abbrev(inet)": Builtin(lambda address: _text(Context(), address)),
    "network(inet)": Builtin(_network),
    "cidr(inet)": Builtin(_network),
    "netmask(inet)": Builtin(
        lambda address: _with(address, ((1 << address.size) - 1) ^ address.host_mask, address.size)
    ),
    "hostmask(inet)": Builtin(lambda address: _with(address, address.host_mask, address.size)),
    "broadcast(inet)": Builtin(lambda address: _with(address, address.number | address.host_mask)),
    "set_masklen(inet, integer)": Builtin(_with_bits),
    "set_masklen(cidr, integer)": Builtin(_network_with_bits),
    **comparisons("macaddr_{}", "macaddr"),
    **comparisons("macaddr8_{}", "macaddr8"),
    "trunc(macaddr)": Builtin(lambda text: text[:9] + "00:00:00"),
}
