"""Conversations: what a client may send frame by frame, after the cases of the Autobahn test suite, and what follows.

Their numbers are in the names, where there is one. Theirs are for a server that echoes; here a `ping` has its id back.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
LIMIT_BYTES = 131072
"""The longest message that the gateway takes in these conversations."""


class Case(NamedTuple):
    """What is sent, each piece by itself, and what has to come: pongs, ids echoed, errors answered, and the close.

    Without a `close` the connection has to go on as if nothing had been.
    """

    name: str
    pieces: tuple[bytes, ...]
    pongs: tuple[bytes, ...] = ()
    echoes: tuple[str, ...] = ()
    errors: int = 0
    close: int | None = None


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A frame (RFC 6455, section 5.2), `reserved` being the three bits as a number, its length in the shortest form."""
    length = len(payload)
    flag = length if length < 126 else 126 if length < 65536 else 127
    return framed(opcode, payload, flag, fin=fin, reserved=reserved, masked=masked)


def framed(
    opcode: int, payload: bytes, flag: int, *, fin: bool = True, reserved: int = 0, masked: bool = True
) -> bytes:
    """The same, its length in the form that `flag` stands for."""
    length = len(payload)
    first = fin << 7 | reserved << 4 | opcode
    more = {126: 2, 127: 8}.get(flag, 0)
    head = bytes((first, masked << 7 | flag)) + (length.to_bytes(more, "big") if more else b"")
    return head + MASK + mask(payload) if masked else head + payload


def mask(payload: bytes) -> bytes:
    """`payload` under MASK."""
    length = len(payload)
    key = (MASK * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


def octets(*frames: bytes, by: int = 1) -> tuple[bytes, ...]:
    """The frames in pieces of so many bytes."""
    data = b"".join(frames)
    return tuple(data[start : start + by] for start in range(0, len(data), by))


def asking(number: str | bytes) -> bytes:
    """The operation whose answer has this id."""
    text = json.dumps(number, ensure_ascii=False).encode() if isinstance(number, str) else b'"' + number + b'"'
    return b'{"op":"ping","id":' + text + b"}"


def asking_in(length: int) -> tuple[str, bytes]:
    """An id, and the operation with it, which is so many bytes long."""
    number = "x" * (length - len(asking("")))
    return number, asking(number)


def parts(payload: bytes, count: int, *, opcode: int = TEXT) -> list[bytes]:
    """A message in so many frames, all but the last ones of the same size."""
    size = -(-len(payload) // count)
    pieces = [payload[number * size : (number + 1) * size] for number in range(count)]
    return [
        frame(CONTINUATION if number else opcode, piece, fin=number == count - 1) for number, piece in enumerate(pieces)
    ]


ALIVE = frame(TEXT, asking("before"))
ECHOED = ("before",)


def framing() -> Iterator[Case]:
    """1: every way to write a length, of text and binary, in one piece and in many; 65,536 is 9's, too."""
    for length in (0, 1, 125, 126, 127, 128, 65535, 65536, LIMIT_BYTES):
        yield Case(f"1.1 text of {length}", (frame(TEXT, b"*" * length),), errors=1)
        yield Case(f"1.2 binary of {length}", (frame(BINARY, b"\xfe" * length),), errors=1)
    for length in (30, 125, 126, 127, 128, 1000, 65535, 65536, LIMIT_BYTES):
        number, payload = asking_in(length)
        yield Case(f"1.1 operation of {length}", (frame(TEXT, payload),), echoes=(number,))
        by = 997 if length > 1000 else 1
        yield Case(f"1.1.8 of {length} in pieces", octets(frame(TEXT, payload), by=by), echoes=(number,))
    yield Case("1.2.8 binary in pieces", octets(frame(BINARY, b"\xfe" * 65536), by=997), errors=1)


def pings() -> Iterator[Case]:
    """2: what a ping says comes back, up to 125 bytes; a pong that nobody asked for does not."""
    for name, payload in {
        "2.1 empty": b"",
        "2.2 text": b"Hello, world!",
        "2.3 binary": b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff",
        "2.4 of 125": b"\xfe" * 125,
    }.items():
        yield Case(name, (frame(PING, payload),), pongs=(payload,))
    yield Case("2.5 of 126", (frame(PING, b"\xfe" * 126),), close=1002)
    yield Case("2.6 of 125 in octets", octets(frame(PING, b"\xfe" * 125)), pongs=(b"\xfe" * 125,))
    yield Case("2.7 unsolicited pong", (frame(PONG),))
    yield Case("2.8 unsolicited pong that says something", (frame(PONG, b"unsolicited"),))
    yield Case("2.9 pong, then ping", (frame(PONG, b"unsolicited"), frame(PING, b"ping")), pongs=(b"ping",))
    yield Case("pong of 126", (frame(PONG, b"\xfe" * 126),), close=1002)
    ten = tuple(f"payload-{number}".encode() for number in range(10))
    sent = [frame(PING, payload) for payload in ten]
    yield Case("2.10 ten pings", (b"".join(sent),), pongs=ten)
    yield Case("2.11 ten pings in octets", octets(*sent), pongs=ten)


def reserved() -> Iterator[Case]:
    """3: bits that no extension has taken."""
    for bits in range(1, 8):
        wrong = {
            "text": frame(TEXT, asking("wrong"), reserved=bits),
            "binary": frame(BINARY, b"\xfe", reserved=bits),
            "ping": frame(PING, b"wrong", reserved=bits),
            "close": frame(CLOSE, b"\x03\xe8", reserved=bits),
        }
        for name, data in wrong.items():
            yield Case(f"3 bits {bits:03b} of a {name}", (data,), close=1002)
        yield Case(f"3 bits {bits:03b} after text", (ALIVE, wrong["text"]), echoes=ECHOED, close=1002)
        yield Case(f"3 bits {bits:03b} in one piece", (ALIVE + wrong["ping"] + frame(PING),), echoes=ECHOED, close=1002)
        yield Case(f"3 bits {bits:03b} in octets", octets(ALIVE, wrong["text"][:2]), echoes=ECHOED, close=1002)
        later = frame(TEXT, asking("parts"), fin=False) + frame(CONTINUATION, b"", reserved=bits)
        yield Case(f"3 bits {bits:03b} of a continuation", (later,), close=1002)


def opcodes() -> Iterator[Case]:
    """4: opcodes that mean nothing."""
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"4 opcode {opcode}", (frame(opcode),), close=1002)
        yield Case(f"4 opcode {opcode} with a payload", (frame(opcode, b"reserved"),), close=1002)
        after = (ALIVE, frame(opcode, b"reserved"), frame(PING))
        yield Case(f"4 opcode {opcode} after text", after, echoes=ECHOED, close=1002)
        yield Case(f"4 opcode {opcode} in octets", octets(ALIVE, frame(opcode)), echoes=ECHOED, close=1002)


def fragments() -> Iterator[Case]:
    """5: messages in parts, what may stand between these, and what may not."""
    text = asking("in parts")
    whole = ("in parts",)
    two, five = parts(text, 2), parts(text, 5)
    ping, hello = frame(PING, b"between"), (b"between",)
    for opcode, name in ((PING, "5.1 ping"), (PONG, "5.2 pong"), (CLOSE, "close")):
        yield Case(f"{name} in parts", (frame(opcode, b"frag", fin=False), frame(CONTINUATION, b"ment")), close=1002)
    for count in (2, 5, 10, len(text)):
        sent = parts(text, count)
        yield Case(f"5.3 text in {count}", tuple(sent), echoes=whole)
        yield Case(f"5.4 text in {count}, one piece", (b"".join(sent),), echoes=whole)
        yield Case(f"5.5 text in {count}, octets", octets(*sent), echoes=whole)
        yield Case(f"binary in {count}", tuple(parts(text, count, opcode=BINARY)), errors=1)
    for name, pieces in {
        "5.6": (two[0], ping, two[1]),
        "5.7": (two[0] + ping + two[1],),
        "5.8": octets(two[0], ping, two[1]),
    }.items():
        yield Case(f"{name} a ping between", pieces, pongs=hello, echoes=whole)
    yield Case("a pong between", (two[0], frame(PONG, b"between"), two[1]), echoes=whole)
    for fin in (True, False):
        lone = frame(CONTINUATION, b"nothing to go on with", fin=fin)
        yield Case(f"5.9 continuation of nothing, {fin=}", (lone, ALIVE), close=1002)
        yield Case(f"5.10 the same in one piece, {fin=}", (lone + ALIVE,), close=1002)
        yield Case(f"5.11 the same in octets, {fin=}", octets(lone), close=1002)
        yield Case(f"5.15 after a message in parts, {fin=}", (*two, lone), echoes=whole, close=1002)
        yield Case(f"5.18 another message inside, {fin=}", (two[0], frame(TEXT, text, fin=fin)), close=1002)
        yield Case(f"binary inside text, {fin=}", (two[0], frame(BINARY, text, fin=fin)), close=1002)
    between = (five[0], five[1], frame(PING, b"one"), five[2], five[3], frame(PING, b"two"), five[4])
    yield Case("5.19 five parts and two pings", between, pongs=(b"one", b"two"), echoes=whole)
    yield Case("5.20 in one piece", (b"".join(between),), pongs=(b"one", b"two"), echoes=whole)
    empty = frame(CONTINUATION, fin=False)
    yield Case("empty first", (frame(TEXT, fin=False), frame(CONTINUATION, text)), echoes=whole)
    yield Case(
        "empty between and last", (frame(TEXT, text, fin=False), empty, empty, frame(CONTINUATION)), echoes=whole
    )
    yield Case("all empty", (frame(TEXT, fin=False), empty, frame(CONTINUATION)), errors=1)
    yield Case("a close between", (two[0], frame(CLOSE, b"\x03\xe8")), close=1000)


GOOD_TEXTS = (
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\u0080\u07ff\u0800\uffff\U00010000\U0010ffff",
    "\ud7ff\ue000\ufffd\ufffe\U0001fffe\U0010fffe",
    "e\u0301\u200d\u202e\ufeff",
    "\N{CLINKING BEER MUGS}" * 50,
)
BAD_TEXTS = {
    "6.3 the surrogate of Autobahn": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "6.4 over U+10FFFF": b"\xce\xba\xf4\x90\x80\x80edited",
    "6.6 cut short": b"\xce\xba\xe1\xbd\xb9\xcf",
    "6.8 five bytes": b"\xf8\x88\x80\x80\x80",
    "6.8 six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "6.10 U+110000": b"\xf4\x90\x80\x80",
    "6.10 U+1FFFFF": b"\xf7\xbf\xbf\xbf",
    "6.12 continuation alone": b"\x80",
    "6.12 continuations alone": b"\x80\xbf" * 3,
    "6.13 starts alone": bytes(byte for start in range(0xC0, 0xE0) for byte in (start, 0x20)),
    "6.14 last byte missing, of two": b"\xc0",
    "6.14 of three": b"\xe0\x80",
    "6.14 of four": b"\xf0\x80\x80",
    "6.16 FE": b"\xfe",
    "6.16 FF": b"\xff",
    "6.17 overlong slash, two bytes": b"\xc0\xaf",
    "6.17 three": b"\xe0\x80\xaf",
    "6.17 four": b"\xf0\x80\x80\xaf",
    "6.18 greatest overlong, two": b"\xc1\xbf",
    "6.18 three": b"\xe0\x9f\xbf",
    "6.18 four": b"\xf0\x8f\xbf\xbf",
    "6.19 overlong zero": b"\xc0\x80",
    "6.20 first high surrogate": b"\xed\xa0\x80",
    "6.20 last high surrogate": b"\xed\xaf\xbf",
    "6.20 first low surrogate": b"\xed\xb0\x80",
    "6.20 last low surrogate": b"\xed\xbf\xbf",
    "6.21 a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
}


def texts() -> Iterator[Case]:
    """6: text is UTF-8, however it is cut; what is none is 1007 once the message is whole."""
    for good in GOOD_TEXTS:
        payload = asking(good)
        yield Case(f"6.2 {good[:9]!a}", (frame(TEXT, payload),), echoes=(good,))
        yield Case(f"6.2 {good[:9]!a} in frames of a byte", tuple(parts(payload, len(payload))), echoes=(good,))
        yield Case(f"6.2 {good[:9]!a} in pieces of a byte", octets(frame(TEXT, payload)), echoes=(good,))
    yield Case("6.7 U+0000 is UTF-8, if no JSON", (frame(TEXT, b"\0"),), errors=1)
    yield Case("6.1 an empty message", (frame(TEXT),), errors=1)
    for name, bad in BAD_TEXTS.items():
        payload = asking(bad)
        yield Case(name, (frame(TEXT, payload),), close=1007)
        yield Case(f"{name}, alone", (frame(TEXT, bad),), close=1007)
        yield Case(f"{name}, in frames of a byte", tuple(parts(payload, len(payload))), close=1007)
        yield Case(f"{name}, as binary", (frame(BINARY, bad),), errors=1)


GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


def closes() -> Iterator[Case]:
    """7: how a client may close, and what it may not say; after a close nothing counts."""
    fine = frame(CLOSE, b"\x03\xe8")
    yield Case("7.1.1 after a message", (ALIVE, fine), echoes=ECHOED, close=1000)
    yield Case("7.1.2 twice", (fine + fine,), close=1000)
    yield Case("7.1.3 and a ping after it", (fine + frame(PING),), close=1000)
    yield Case("7.1.4 and text after it", (fine + ALIVE,), close=1000)
    yield Case("7.1.5 in a message in parts", (parts(asking("no"), 2)[0] + fine + frame(CONTINUATION),), close=1000)
    number, large = asking_in(65536)
    yield Case("7.1.6 after a large message", (frame(TEXT, large) + fine,), echoes=(number,), close=1000)
    yield Case("7.3.1 empty", (frame(CLOSE),), close=1000)
    yield Case("7.3.2 of one byte", (frame(CLOSE, b"\x03"),), close=1002)
    for length in (0, 1, 121, 123):
        yield Case(f"7.3.4 with a reason of {length}", (frame(CLOSE, b"\x03\xe8" + b"*" * length),), close=1000)
    for length in (124, 200, 65536):
        yield Case(f"7.3.6 with a reason of {length}", (frame(CLOSE, b"\x03\xe8" + b"*" * length),), close=1002)
    yield Case("7.5.1 with a reason that is no UTF-8", (frame(CLOSE, b"\x03\xe8" + BAD_TEXTS["6.16 FF"]),), close=1007)
    yield Case("with a reason in UTF-8", (frame(CLOSE, b"\x03\xe8" + "tschüss".encode()),), close=1000)
    for code in GOOD_CODES:
        yield Case(f"7.7 {code}", (frame(CLOSE, struct.pack("!H", code)),), close=1000)
    for code in BAD_CODES:
        yield Case(f"7.9 {code}", (frame(CLOSE, struct.pack("!H", code)),), close=1002)
        yield Case(f"7.13 {code} with a reason", (frame(CLOSE, struct.pack("!H", code) + b"why"),), close=1002)


def limits() -> Iterator[Case]:
    """9: a message of the limit, in whatever pieces, and a byte more, which is refused before it is there."""
    number, longest = asking_in(LIMIT_BYTES)
    for size in (64, 256, 4096, 65536):
        yield Case(f"9.3 in frames of {size}", (b"".join(parts(longest, LIMIT_BYTES // size)),), echoes=(number,))
    for size in (512, 2048):
        yield Case(f"9.5 in pieces of {size}", octets(frame(TEXT, longest), by=size), echoes=(number,))
    over = longest + b" "
    for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
        yield Case(f"a byte more of {name}", (frame(opcode, over),), close=1009)
        yield Case(f"only the head of {name}", (frame(opcode, over)[:14],), close=1009)
        yield Case(f"a byte more of {name} in 10 frames", (b"".join(parts(over, 10, opcode=opcode)),), close=1009)
        head = bytes((0x80 | opcode, 0xFF))
        for length in (2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1):
            yield Case(f"{name} of {length}", (head + length.to_bytes(8, "big") + MASK,), close=1009)
    yield Case("a last part that is too long", (*parts(longest, 2)[:1], frame(CONTINUATION, over)), close=1009)


def many_parts() -> Iterator[Case]:
    """10: 65,536 bytes in frames of 1,300."""
    number, payload = asking_in(65536)
    yield Case("10.1.1", tuple(parts(payload, -(-65536 // 1300))), echoes=(number,))


def lax() -> Iterator[Case]:
    """What RFC 6455 forbids and aiohttp's reader takes: see docs/protocol.md."""
    yield Case("5.1: no mask", (frame(TEXT, asking("bare"), masked=False),), echoes=("bare",))
    yield Case("5.1: a ping without a mask", (frame(PING, b"bare", masked=False),), pongs=(b"bare",))
    yield Case("5.2: a short length in the form of 16 bits", (framed(TEXT, asking("16"), 126),), echoes=("16",))
    yield Case("5.2: a short length in the form of 64 bits", (framed(TEXT, asking("64"), 127),), echoes=("64",))
    yield Case("5.4: a message inside one that begins empty", (frame(TEXT, fin=False), ALIVE), echoes=ECHOED)
    beginning = frame(TEXT, BAD_TEXTS["6.4 over U+10FFFF"], fin=False)
    late = (beginning, frame(PING, b"later"), frame(CONTINUATION))
    yield Case("8.1: no UTF-8, found at the message's end", late, pongs=(b"later",), close=1007)


CATEGORIES = {
    "framing": framing,
    "pings": pings,
    "reserved": reserved,
    "opcodes": opcodes,
    "fragments": fragments,
    "texts": texts,
    "closes": closes,
    "limits": limits,
    "many_parts": many_parts,
    "lax": lax,
}


def named(cases: Iterable[Case]) -> Sequence[Case]:
    """The cases, no two of one name."""
    every = [*cases]
    assert len({case.name for case in every}) == len(every)
    return every
