"""HTTP requests as a fuzzer writes them: valid ones in odd forms, and broken ones of every kind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

TEXTS = ("the goal of the team", "new code for the server", "a vote at the summit", "coach and data", "ü 😀\u2028 goal")
PROMPTS = ("Say 3", "Say it all", "?")
ROUTES = ("/predict", "/explain", "/v1/chat/completions", "/v1/completions", "/prompt")
PATHS = (*ROUTES, "/healthz", "/readyz", "/v1/models", "/metrics", "/openapi.json", "/docs", "/", "/nothing")
HOST = b"Host: localhost\r\n"
ODD_PATHS = (
    *(
        b"*",
        b"",
        b"?",
        b"/predict?x=%00&%zz",
        b"//predict",
        b"/../../etc/passwd",
        b"/%2e%2e/%00",
        b"/predict/",
        b"/\xff",
    ),
    *(b"http://evil.example/predict", b"http://[::1", b"/" + b"a" * 70_000, b"/%f0%9f", b"/\xf0\x9f\x98\x80", b"/a b"),
)
METHODS = (
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"CONNECT",
    b"PRI",
    b"get",
    b"X",
    b"",
)
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.10", b"HTTP/", b"http/1.1", b"")
ODD_HEADERS = (
    *(b"Host: evil.example", b"Host:", b"Host: localhost:99999999", b"Host: 127.0.0.1.evil.example", b"Host: [::1]:1"),
    *(
        b"No colon",
        b": no name",
        b"Space : before",
        b"A: b\r\n folded",
        b"A: \x00",
        b"A: \xff\xfe",
        b"A: " + b"b" * 100_000,
    ),
    *(b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: abc", b"Content-Length: 1, 2"),
    *(b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +3", b"Content-Length: 0x10"),
    *(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked"),
    *(b"Transfer-Encoding: identity", b"Expect: 100-continue", b"Expect: nothing", b"Connection: close"),
    *(b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: upgrade\r\nUpgrade: h2c", b"Content-Encoding: gzip"),
    *(
        b"X-Request-ID: " + b"x" * 65,
        b"X-Request-ID: \t<script>",
        b"Authorization: Basic !!!",
        b"Authorization: Bearer",
    ),
    *(
        b"Content-Type: text/plain",
        b"Content-Type: multipart/form-data",
        b"Content-Type: application/json; charset=\xff",
    ),
    *(b"Content-Type: application/x-www-form-urlencoded", b"Accept: \r\nAccept: nothing", b"Range: bytes=0-1"),
)
ODD_JSON = (
    *(b"", b"{", b"null", b"[]", b"3", b'"text"', b"NaN", b"\x00", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"{}" * 2),
    *(b'{"inputs": NaN}', b'{"inputs": "a", "top_k": 1e999}', b'{"inputs": "a", "top_k": Infinity}', b"{'inputs': 1}"),
    *(b'{"inputs": "\\ud800"}', b'{"inputs": "a\\u0000b"}', b'{"inputs": "\xff"}', b'{"inputs": "a", "inputs": "b"}'),
    *(b'{"\\ud800": 1}', b'{"messages": [{"role": "user", "content": "\\udfff"}]}', b'{"prompt": "\\ud83d"}'),
    *(b"[" * 100_000, b'{"a":' * 50_000, b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", b"9" * 5000, b"1" * 400_000),
    *(b'{"inputs": [' + b'"a",' * 70 + b'"a"]}', b'{"inputs": "' + b"a " * 400_000 + b'"}'),
    *(b'{"inputs": "' + b"a" * 900_000 + b'"}', b'{"prompt": "' + b"b" * 2000 + b'"}'),
    b'{"messages": [' + b'{"role":"user","content":"a"},' * 300 + b"{}]}",
)


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    """Return the head of a valid request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def valid(draw: random.Random, name: str) -> tuple[bytes, str, str]:
    """Return a valid request whose id is `name`, in some form that HTTP allows, its path, and its text or prompt."""
    path = draw.choice(("/predict", "/predict", "/predict", "/v1/chat/completions"))
    text = draw.choice(TEXTS if path == "/predict" else PROMPTS)
    body: dict[str, object] = {"inputs": text, "model": "linear"}
    if path != "/predict":
        body = {"messages": [{"role": "user", "content": text}]}
    content = json.dumps(body, ensure_ascii=draw.random() < 0.5, indent=draw.choice((None, 3))).encode()
    lines = [f"X-Request-ID: {name}", draw.choice(("Content-Type: application/json", "content-type:application/json"))]
    if draw.random() < 0.3:
        lines.append("Expect: 100-continue")
    if draw.random() < 0.5:
        return head(path, *lines, f"Content-Length: {len(content)}") + content, path, text
    return head(path, *lines, "Transfer-Encoding: chunked") + _chunks(draw, content), path, text


def _chunks(draw: random.Random, content: bytes) -> bytes:
    parts, start = [], 0
    while start < len(content):
        size = draw.randint(1, len(content) - start)
        extension = draw.choice((b"", b"", b";a=b"))
        parts.append(b"%x%s\r\n%s\r\n" % (size, extension, content[start : start + size]))
        start += size
    return b"".join([*parts, draw.choice((b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"))])


def _odd_line(draw: random.Random) -> bytes:
    path = draw.choice((*ODD_PATHS, *(path.encode() for path in PATHS)))
    return b" ".join((draw.choice(METHODS), path, draw.choice(VERSIONS))) + b"\r\n" + HOST + b"\r\n"


def _odd_headers(draw: random.Random) -> bytes:
    method, path = draw.choice(("GET", "POST")), draw.choice(PATHS)
    lines = draw.choices(ODD_HEADERS, k=draw.randint(1, 3)) + [b"A: b"] * draw.choice((0, 0, 2000))
    host = draw.choice((HOST, HOST, b"", HOST * 2))
    line_end = draw.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"))
    return f"{method} {path} HTTP/1.1\r\n".encode() + host + line_end.join([*lines, b"", b""]) + b'{"inputs": "a"}'


def _odd_json(draw: random.Random) -> bytes:
    body, path = draw.choice(ODD_JSON), draw.choice(ROUTES)
    fields = {b'"inputs"': "/predict", b'"messages"': "/v1/chat/completions", b'"prompt"': "/v1/completions"}
    if draw.random() < 0.8:
        path = next((route for field, route in fields.items() if field in body), path)
    return head(path, "Content-Type: application/json", f"Content-Length: {len(body)}") + body


def _odd_fields(draw: random.Random) -> bytes:
    """Fields that exist, with values of any type and size."""
    texts = ["", "a", " ", "\u0000", "\ud800 goal", "goal " * 2000, "\u202e\ufeff", "<eos>"]
    values = [*texts, None, True, 0, -1, 3, 10**30, 0.5, -0.0, 1e308, [], ["a"], {}, {"a": []}]
    names = [
        "inputs",
        "text",
        "text_pair",
        "label",
        "model",
        "top_k",
        "messages",
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
    ]
    names += ["seed", "stop", "stream", "stream_options", "n", "input", "echo", "user", "metadata", "response_format"]
    path, body = draw.choice(ROUTES), {name: draw.choice(values) for name in draw.sample(names, draw.choice((0, 1, 4)))}
    if draw.random() < 0.7:
        text = draw.choice((*texts, *texts, *values))
        messages = {"messages": [{"role": draw.choice(("user", "user", "system", "tool")), "content": text}]}
        body |= {"/predict": {"inputs": text}, "/explain": {"text": text}, "/v1/completions": {"prompt": text}}.get(
            path, messages
        )
    content = json.dumps(body).encode()
    return head(path, "Content-Type: application/json", f"Content-Length: {len(content)}") + content


def _wrong_length(draw: random.Random) -> bytes:
    body = b'{"inputs": "a goal"}'
    length = len(body) + draw.choice((-20, -5, -1, 1, 5, 1000))
    return head(draw.choice(ROUTES), "Content-Type: application/json", f"Content-Length: {length}") + body


def _odd_chunks(draw: random.Random) -> bytes:
    chunks = (
        b"5\r\nabc\r\n0\r\n\r\n",
        b"zz\r\n",
        b"-1\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"0\r\nA: " + b"b" * 99_999,
        b"3\nabc\n0\n\n",
    )
    return head(draw.choice(ROUTES), "Transfer-Encoding: chunked") + draw.choice(chunks)


def _large(draw: random.Random) -> bytes:
    """A body of 10 MB, whose length is known or not."""
    body = b'{"inputs": "' + b"a " * 5_000_000 + b'"}'
    if draw.random() < 0.5:
        return head("/predict", f"Content-Length: {len(body)}") + body
    return head("/predict", "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def _mutated(draw: random.Random) -> bytes:
    """A valid request with bytes changed, removed, repeated or cut off."""
    request = bytearray(valid(draw, "mutated")[0])
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(request))
        end = min(len(request), start + draw.choice((0, 1, 1, 8, 60)))
        request[start:end] = draw.choice((draw.randbytes(1), b"", b"\r\n", b"\x00", bytes(request[start:end]) * 2))
        if not request:
            return b"\r\n"
    return bytes(request)


def _stream(draw: random.Random) -> bytes:
    body = {"messages": [{"role": "user", "content": draw.choice(PROMPTS)}], "stream": True}
    more = {
        "temperature": draw.choice((0, 1e-9, 2)),
        "seed": 2**63 - 1,
        "stop": ["a", "e"],
        "max_tokens": draw.choice((1, 8)),
    }
    content = json.dumps(body | more).encode()
    return head("/v1/chat/completions", "Content-Type: application/json", f"Content-Length: {len(content)}") + content


def _noise(draw: random.Random) -> bytes:
    return draw.choice(
        (
            draw.randbytes(draw.randint(1, 3000)),
            b"\r\n" * 50,
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
    )


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    *(
        _odd_line,
        _odd_headers,
        _odd_headers,
        _odd_json,
        _odd_json,
        _odd_fields,
        _odd_fields,
        _odd_fields,
        _wrong_length,
    ),
    *(_odd_chunks, _mutated, _mutated, _stream, _noise, lambda draw: valid(draw, "valid")[0]),
)


def fuzzed(draw: random.Random) -> bytes:
    """Return one to four requests, most of which no server should answer, for one connection."""
    if draw.random() < 0.02:
        return _large(draw)
    return b"".join(draw.choice(KINDS)(draw) for _ in range(draw.choice((1, 1, 2, 4))))
