"""Cases of kind `cbor`: section 2."""

from collections.abc import Iterator

Case = tuple[str, str, str, bytes, list[tuple[str, str]]]

_ACCEPTED = {
    "the smallest integer of one byte": "00",
    "the largest integer in the head": "17",
    "the first integer of two bytes": "1818",
    "the largest integer": "1b7fffffffffffffff",
    "minus one": "20",
    "the smallest integer": "3b7fffffffffffffff",
    "an empty byte string": "40",
    "bytes": "43010203",
    "an empty text": "60",
    "text of two-byte and three-byte characters": "65c3a9e6b5b7",
    "an empty array": "80",
    "an empty map": "a0",
    "a tag that is allowed": "d24101",
}
_ACCEPTED["a map sorted shorter first"] = "a300012002181803"
_ACCEPTED["a nested array"] = "83018202038104"

_REFUSED = {
    "nothing": "",
    "an integer in a head too long": "1817",
    "an integer in two bytes that fits one": "190017",
    "an integer in four bytes that fits two": "1a0000ffff",
    "an integer in eight bytes that fits four": "1b00000000ffffffff",
    "a negative integer in a head too long": "3817",
    "an integer beyond 63 bits": "1b8000000000000000",
    "a negative integer beyond 64 bits": "3b8000000000000000",
    "a bignum": "c249010000000000000000",
    "a byte string whose length is written too long": "580141",
    "a text whose length is written too long": "780161",
    "an array whose length is written too long": "980101",
    "a map whose length is written too long": "b8010102",
    "a tag number written too long": "d81241" + "01",
    "an indefinite byte string": "5f4101ff",
    "an indefinite text": "7f6161ff",
    "an indefinite array": "9f01ff",
    "an indefinite map": "bf0102ff",
    "a break alone": "ff",
    "a reserved length": "1c",
    "a half float": "f93c00",
    "a single float": "fa3f800000",
    "a double float": "fb3ff0000000000000",
    "not a number": "f97e00",
    "false": "f4",
    "true": "f5",
    "null": "f6",
    "undefined": "f7",
    "another simple value": "f0",
    "a simple value of two bytes": "f8ff",
    "a tag that is not allowed": "c101",
    "an epoch date": "c11a514b67b0",
    "self-described CBOR": "d9d9f700",
    "a byte after the item": "0000",
    "two items": "8080",
    "a byte string cut short": "4301",
    "a text cut short": "6361",
    "an array cut short": "8201",
    "a map cut short": "a101",
    "a head cut short": "19",
    "an array that claims four thousand million items": "9affffffff",
    "a byte string that claims more than there is": "5bffffffffffffffff",
    "a map that claims more than there is": "bbffffffffffffffff",
    "a key twice": "a200010002",
    "keys not sorted": "a201000001",
    "keys sorted bytewise and not shorter first": "a2181801" + "2002",
    "a byte string as a key": "a1410101",
    "an array as a key": "a18001",
    "a map as a key": "a1a001",
    "text that is not UTF-8": "61ff",
    "text with a surrogate": "63eda080",
    "text of an overlong encoding": "62c080",
    "nine levels deep": "81" * 9 + "00",
    "two thousand levels deep": "81" * 2000 + "00",
    "maps as keys of maps two thousand deep": "a1" * 2000 + "00",
    "tags two thousand deep": "d2" * 2000 + "00",
    "a reserved length with bytes behind it": "5c" + "00" * 15 + "01" + "00" * 8,
    "an indefinite head with bytes behind it": "1f" + "00" * 127 + "01",
}


def cases() -> Iterator[Case]:
    for name, data in _ACCEPTED.items():
        yield "cbor", name, "-", bytes.fromhex(data), [("tags", "18")]
    for name, data in _REFUSED.items():
        yield "cbor", name, "malformed", bytes.fromhex(data), [("tags", "18")]
