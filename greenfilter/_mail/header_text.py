"""Text in header fields: encoded words (RFC 2047), parameters (RFC 2231), addresses (RFC 5890)."""

from __future__ import annotations

import binascii
import codecs
import encodings.idna
import re
import unicodedata
from typing import Final
from urllib.parse import quote_from_bytes

# RFC 2047, 2: an encoded word has 75 characters at most, and a line that has one, 76.
WORD_CHARS: Final = 75
# The longest word of other text that fits on a line of 998 octets, after the space that folds it.
LONGEST_WORD: Final = 997

_ADDRESSES = re.compile(
    r"((resent-)?(from|sender|reply-to|to|cc|bcc)|mail-(followup|reply)-to|errors-to|"
    r"return-receipt-to|disposition-notification-to)\Z"
)
_PARAMETERS = ("content-type", "content-disposition")
# Programs read these, and know no encoded words there.
_FOR_PROGRAMS = re.compile(
    r"(.*message-id|in-reply-to|references|(resent-)?date|received(-spf)?|return-path|"
    r"mime-version|content-(?!description).*|dkim-.*|domainkey-.*|arc-.*|authentication-results|"
    r"list-.*|autocrypt.*|delivered-to)\Z"
)
_WHITE = re.compile(r"([ \t]+)")
# RFC 2231, 5 lets a language follow the character set.
_ENCODED_WORD = re.compile(r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([bBqQ])\?([^?]*)\?=")
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD.pattern}(?:[ \t]*{_ENCODED_WORD.pattern})*")
_IS_ENCODED_WORD = re.compile(rf"{_ENCODED_WORD.pattern}\Z")
_NOT_TEXT = {codecs.lookup(n).name for n in ("idna", "punycode", "unicode_escape", "undefined")}
_NOT_TEXT.add("raw-unicode-escape")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\0-\x08\n-\x1f\x7f]")
_Q_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ ")
# Each runs to the end of the text if it is not closed, so that nothing is read twice.
_QUOTED = r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)'
_PARAMETER = re.compile(rf'([\w!#$&+.^`|~-]+)=({_QUOTED}|[^\s;"]+)', re.ASCII | re.DOTALL)
_ADDRESS_TOKEN = re.compile(
    rf'(?P<quoted>{_QUOTED})|(?P<angle><[^<>]*>)|(?P<word>[^\s"<>(),:;]+)|(?P<white>[ \t]+)|.',
    re.DOTALL,
)
_SPECIAL = re.compile(r'[()<>\[\]:;@\\,."]')
# Letters that IDNA 2008 keeps, and the standard library's IDNA 2003 maps to others.
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")
_MAX_LABEL = 63


def encode(name: str, value: str, *, literal: bool = False) -> str:
    """Return the value of a field with all of it that is not ASCII encoded.

    Args:
        name: of the field, which decides how: display names of addresses as encoded words and
            domains as A-labels, parameters of MIME fields as RFC 2231 says, else encoded words.
        value: without line ends. Octets that are not UTF-8 stand as surrogates.
        literal: ``value`` is text for people: what looks like an encoded word is not one.

    Raises:
        ValueError: an address has no form in ASCII.
        UnicodeEncodeError: the value has a surrogate that stands for no octet.
    """
    name = name.lower()
    room = max(WORD_CHARS // 3, WORD_CHARS - len(name) - 1)  # on the line of the name
    if _ADDRESSES.match(name):
        return value if value.isascii() and not literal else _encode_addresses(value, room)
    if name in _PARAMETERS:
        value = _PARAMETER.sub(_encode_parameter, value)
    longest = len(value) if _FOR_PROGRAMS.match(name) else LONGEST_WORD
    return encode_text(value, room, longest, literal=literal)


def encode_text(value: str, room: int, longest: int, *, literal: bool = False) -> str:
    """Return text in which all words that need it are encoded words.

    Args:
        value: words with white space between them.
        room: characters for the first encoded word, if the value begins with it.
        longest: characters of the longest word that is left as it is.
        literal: encode what looks like an encoded word, and white space at the ends.
    """
    if literal and value != value.strip(" \t"):
        return _encode_words(value, room)
    pieces = _WHITE.split(value)  # words at the even places
    words = pieces[::2]
    # A line is folded before white space only: all of it stands on the line of the word.
    sizes = [
        len(word) + len(white) - 1 for word, white in zip(words, [" ", *pieces[1::2]], strict=True)
    ]
    needy = [
        not word.isascii() or size > longest or (literal and "=?" in word)
        for word, size in zip(words, sizes, strict=True)
    ]
    out = []
    first = 0
    while first < len(words):
        last = first
        if needy[first]:
            while last + 1 < len(words) and needy[last + 1]:
                last += 1
            text = "".join(pieces[2 * first : 2 * last + 1])
            # White space between two encoded words is not shown (RFC 2047, 6.2).
            if first and not literal and _IS_ENCODED_WORD.match(words[first - 1]):
                text = pieces[2 * first - 1] + text
            if last + 1 < len(words) and not literal and _IS_ENCODED_WORD.match(words[last + 1]):
                text += pieces[2 * last + 1]
            out.append(_encode_words(text, WORD_CHARS if first else room))
        else:
            out.append(words[first])
        out += pieces[2 * last + 1 : 2 * last + 2]
        first = last + 1
    return "".join(out)


def decode(name: str, value: str) -> str:
    """Return the value of a field as text to read.

    Encoded words are decoded where they can be. Control characters are spaces, and octets that are
    not text in their character set are U+FFFD. In address fields, a display name that needs quotes
    when it is decoded has them.
    """
    if _ADDRESSES.match(name.lower()):
        text = _ADDRESS_TOKEN.sub(_decode_quoted, value)
        text = _ENCODED_WORDS.sub(lambda match: _quoted_if_needed(_decode_run(match[0])), text)
    else:
        text = _ENCODED_WORDS.sub(lambda match: _decode_run(match[0]), value)
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text))


def to_a_labels(domain: str) -> str:
    """Return a domain as it is written in ASCII (RFC 5890, 2.3.2.1), in lower case.

    Raises:
        ValueError: it has no such form.
    """
    if domain.isascii():
        return domain.lower()
    labels = [_to_a_label(label) for label in encodings.idna.dots.split(domain)]
    return ".".join(labels).lower()


def _to_a_label(label: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).lower())
    try:
        if not text or text.isascii():
            return text
        if not _DEVIATIONS.intersection(text):
            return encodings.idna.ToASCII(text).decode()
        ascii_label = f"xn--{text.encode('punycode').decode()}"
        if len(ascii_label) <= _MAX_LABEL:
            return ascii_label
    except UnicodeError:
        pass
    raise ValueError(f"{label!r} is not valid in the name of a domain")


def _encode_words(text: str, room: int) -> str:
    """Return text as encoded words of UTF-8, or of "unknown-8bit" (RFC 1428) if it is not."""
    octets = [char.encode("utf-8", "surrogateescape") for char in text]
    charset = "unknown-8bit" if _SURROGATE.search(text) else "utf-8"
    # Legible as long as half of it is.
    use_q = sum(char not in _Q_SAFE for char in text) * 2 <= len(text)
    sizes = [
        3 * len(octet) if use_q and char not in _Q_SAFE else len(octet)
        for char, octet in zip(text, octets, strict=True)
    ]
    overhead = len(f"=?{charset}?q??=")
    words, start, used = [], 0, 0
    for index, size in enumerate(sizes):
        chars = room - overhead
        if used + size > max(chars if use_q else chars // 4 * 3, 12) and used:
            words.append(_encode_word(octets[start:index], charset, use_q))
            start, used, room = index, 0, WORD_CHARS
        used += size
    words.append(_encode_word(octets[start:], charset, use_q))
    return " ".join(words)


def _encode_word(octets: list[bytes], charset: str, use_q: bool) -> str:
    if use_q:
        safe = [
            octet.decode()
            if len(octet) == 1 and chr(octet[0]) in _Q_SAFE
            else "".join(f"={byte:02X}" for byte in octet)
            for octet in octets
        ]
        return f"=?{charset}?q?{''.join(safe).replace(' ', '_')}?="
    return f"=?{charset}?b?{binascii.b2a_base64(b''.join(octets), newline=False).decode()}?="


def _decode_run(run: str) -> str:
    """Decode encoded words that follow each other; a character may be cut between two of them."""
    parts: list[tuple[str, bytes | str]] = []
    for match in _ENCODED_WORD.finditer(run):
        charset, data = _decode_word(match)
        if parts and isinstance(data, bytes) and parts[-1][0] == charset:
            data = parts.pop()[1] + data  # type: ignore[operator]
        parts.append((charset, data))
    texts = [
        data if isinstance(data, str) else data.decode(charset, "replace")
        for charset, data in parts
    ]
    return "".join(texts)


def _decode_word(match: re.Match[str]) -> tuple[str, bytes | str]:
    """Return character set and octets of an encoded word, or "" and itself if it is not valid."""
    try:
        charset = "utf-8" if match[1].lower() == "unknown-8bit" else codecs.lookup(match[1]).name
        b"".decode(charset)  # raises LookupError for what is not text
        data = match[3].encode("utf-8", "surrogateescape")
        if match[2] in "bB":
            data = binascii.a2b_base64(data + b"==")
        else:
            data = binascii.a2b_qp(data, header=True)
    except (LookupError, ValueError):
        return "", match[0]
    return ("", match[0]) if charset in _NOT_TEXT else (charset, data)


def _encode_parameter(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    if value.isascii():
        return match[0]
    charset = "unknown-8bit" if _SURROGATE.search(value) else "utf-8"
    data = _unquote(value).encode("utf-8", "surrogateescape")
    return f"{name.removesuffix('*')}*={charset}''{quote_from_bytes(data, safe='')}"


# --- addresses (RFC 5322, 3.4) ---


def _encode_addresses(value: str, room: int) -> str:
    out: list[str] = []
    phrase: list[str] = []  # of display names and comments: words, quoted strings, white space
    for match in _ADDRESS_TOKEN.finditer(value):
        token, kind = match[0], match.lastgroup
        is_address = kind == "angle" or (kind == "word" and "@" in token)
        if kind in ("quoted", "word", "white") and not is_address:
            phrase.append(token)
            continue
        if is_address and token[0] == "@" and phrase and phrase[-1][0] == '"':
            token = phrase.pop() + token  # a local part in quotes
        out += _encode_phrase(phrase, room if not out else WORD_CHARS, before=token)
        phrase = []
        out.append(token if token.isascii() else _encode_address(token))
    out += _encode_phrase(phrase, room if not out else WORD_CHARS, before="")
    return "".join(out)


def _encode_phrase(phrase: list[str], room: int, *, before: str) -> list[str]:
    """Encode the words of a display name or comment, from the first to the last that need it."""
    needy = [index for index, word in enumerate(phrase) if _needs_encoding(word)]
    if not needy:
        return phrase
    first, last = needy[0], needy[-1]
    # An encoded word next to it is taken along: the white space between them would be lost.
    while first > 1 and _IS_ENCODED_WORD.match(phrase[first - 2]):
        first -= 2
    while last + 2 < len(phrase) and _IS_ENCODED_WORD.match(phrase[last + 2]):
        last += 2
    text = "".join(_unquote(word) if word[0] == '"' else word for word in phrase[first : last + 1])
    text = _ENCODED_WORDS.sub(lambda match: _decode_run(match[0]), text)
    encoded = _encode_words(_CONTROL.sub(" ", text), WORD_CHARS if first else room)
    if last + 1 == len(phrase) and before[:1] == "<":
        encoded += " "  # what follows an encoded word is white space, or the end of a comment
    return [*phrase[:first], encoded, *phrase[last + 1 :]]


def _needs_encoding(word: str) -> bool:
    looks_encoded = "=?" in word and not _IS_ENCODED_WORD.match(word)
    return not word.isascii() or (looks_encoded and word[0] != '"')


def _encode_address(token: str) -> str:
    """Return an address, or what stands between angle brackets, with its domain in A-labels."""
    local, at, domain = token.rpartition("@")
    if not at:
        local, domain = "", token
    if not local.isascii():
        raise ValueError(
            f"{token!r} has no form in ASCII: what stands before the @ is sent to servers with "
            "SMTPUTF8 only, which OpenSMTPD does not support"
        )
    tail = re.search(r"[>\s]*\Z", domain)[0]  # type: ignore[index]
    head = "<" if domain[:1] == "<" else ""
    name = domain[len(head) : len(domain) - len(tail)]
    return f"{local}{at}{head}{to_a_labels(name)}{tail}"


def _unquote(value: str) -> str:
    if value[:1] != '"':
        return value
    return re.sub(r"\\(.)", r"\1", value[1:].removesuffix('"'), flags=re.DOTALL)


def _decode_quoted(match: re.Match[str]) -> str:
    """Decode encoded words inside of quotes, where many programs put them."""
    if match["quoted"] is None or "=?" not in match[0]:
        return match[0]
    text = _ENCODED_WORDS.sub(lambda word: _decode_run(word[0]), _unquote(match[0]))
    return _quote(text)


def _quoted_if_needed(text: str) -> str:
    return _quote(text) if _SPECIAL.search(text) else text


def _quote(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
