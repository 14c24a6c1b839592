"""What ``check`` says of decisions that are made, returned or lost in a wrong way."""

from __future__ import annotations

import pytest

from .checking import check_all

TOP = "from greenfilter import DROP, Filter, disconnect, junk, proceed, reject, report, rewrite\n"
EHLO = "filter.ehlo"


def ehlo(body: str, top: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{TOP}{top}\n@app.filter.ehlo\ndef look(ctx, identity):\n{lines}\n"


CODES = "an SMTP reply code is 400 to 599, not"
ERRORS = {
    "made and not returned": (
        ehlo("reject(550, 'no')"),
        "filter.ehlo: makes a reject and does not return it; write: return reject(550, 'no')",
    ),
    "made and not returned, in a branch": (
        ehlo("if identity == 'x':\n    disconnect(421, identity)\nelse: print()"),
        "filter.ehlo: makes a disconnect and does not return it; "
        "write: return disconnect(421, identity)",
    ),
    "by another name of the package": (
        ehlo("gf.junk()", "import greenfilter as gf"),
        "filter.ehlo: makes a junk and does not return it; write: return gf.junk()",
    ),
    "put into a variable that nobody reads": (
        ehlo("answer = reject(550, 'no')"),
        "filter.ehlo: makes a reject and does not return it; write: return answer",
    ),
    "made in a function that is called": (
        ehlo("deny()", "def deny():\n    reject(550, 'no')"),
        "filter.ehlo: makes a reject and does not return it; write: return reject(550, 'no')",
    ),
    "returned to a caller that does not return it": (
        ehlo("deny(1)", "def deny(x):\n    return reject(550, 'no')"),
        "filter.ehlo: does not return the reject that deny returns; write: return deny(...)",
    ),
    "deferred and not returned": (
        ehlo("ctx.defer()"),
        "filter.ehlo: makes a defer and does not return it; write: return ctx.defer()",
    ),
    "raised": (
        ehlo("raise reject(550, 'no')"),
        "filter.ehlo: raises reject, which is not an exception; return it",
    ),
    "the function raised": (
        ehlo("raise reject"),
        "filter.ehlo: raises reject, which is not an exception; return it",
    ),
    "yielded": (
        ehlo("yield reject(550, 'no')"),
        "filter.ehlo: look is a generator, whose body never runs; return, not yield",
    ),
    "yielded among lines": (
        f"{TOP}@app.lines\ndef look(ctx, lines):\n    for line in lines: yield line\n"
        "    yield reject(550, 'no')\n",
        "lines: yields reject, but lines are bytes; return it instead",
    ),
    "yielded for a line": (
        f"{TOP}@app.filter.data_line\ndef look(ctx, line):\n    yield junk()\n",
        "filter.data_line: yields junk, but lines are bytes",
    ),
    "returned for a line": (
        f"{TOP}@app.filter.data_line\ndef look(ctx, line):\n    return reject(550, 'no')\n",
        "filter.data_line: returns reject, but a line is kept, replaced or left out only; "
        "decide in app.filter.commit",
    ),
    "a tuple": (
        ehlo("return 550, 'no'"),
        "filter.ehlo: returns (550, 'no'), which is not a decision; "
        "write: return reject(550, 'no')",
    ),
    "a tuple that names it": (
        ehlo("return 'rewrite', identity"),
        "filter.ehlo: returns ('rewrite', identity), which is not a decision; "
        "write: return rewrite(identity)",
    ),
    "its name": (
        ehlo("return 'reject'"),
        "filter.ehlo: returns 'reject', which is not a decision; write: return reject(550, 'text')",
    ),
    "the reply": (
        ehlo("return '550 5.7.1 no'"),
        "filter.ehlo: returns '550 5.7.1 no', which is not a decision; "
        "write: return reject(550, '5.7.1 no')",
    ),
    "the code": (
        ehlo("return 550"),
        "filter.ehlo: returns 550, which is not a decision; write: return reject(550, 'text')",
    ),
    "a truth": (
        ehlo("return identity == 'x'"),
        "filter.ehlo: returns identity == 'x', which is not a decision",
    ),
    "a negation": (
        ehlo("return not identity"),
        "filter.ehlo: returns not identity, which is not a decision",
    ),
    "a text with something in it": (
        ehlo("return f'550 {identity}'"),
        "filter.ehlo: returns f'550 {identity}', which is not a decision",
    ),
    "the function": (
        ehlo("return junk"),
        "filter.ehlo: returns the function junk, not what it makes; write: return junk(...)",
    ),
    "a lambda's tuple": (
        f"{TOP}app.filter.ehlo(lambda ctx, identity: (550, 'no'))",
        "filter.ehlo: returns (550, 'no'), which is not a decision; "
        "write: return reject(550, 'no')",
    ),
    "text of a message": (
        f"{TOP}@app.message\ndef look(ctx, message):\n    return 'text'\n",
        "message: returns 'text', which is not a decision",
    ),
    "a number of a tap": (
        f"{TOP}@app.tap\ndef look(ctx, lines):\n    return 1\n",
        "tap: returns 1, which is not a decision",
    ),
    "a code that refuses nothing": (
        ehlo("return reject(250, 'fine')"),
        f"filter.ehlo: reject(250, 'fine'): {CODES} 250 (RFC 5321, 4.2.1)",
    ),
    "a code that refuses nothing, with what nobody can see": (
        ehlo("return disconnect(200, f'no {identity}')"),
        f"filter.ehlo: disconnect(200, f'no {{identity}}'): {CODES} 200 (RFC 5321, 4.2.1)",
    ),
    "a code of text": (
        ehlo("return reject('550', 'no')"),
        f"filter.ehlo: reject('550', 'no'): {CODES} '550' (RFC 5321, 4.2.1)",
    ),
    "code and text in one": (
        ehlo("return reject('550 no')"),
        "filter.ehlo: reject(code, text) does not take this (missing a required argument: 'text')"
        "; write: reject(550, 'no')",
    ),
    "no text": (
        ehlo("return disconnect(450)"),
        "filter.ehlo: disconnect(code, text) does not take this "
        "(missing a required argument: 'text')",
    ),
    "an enhanced code of another class": (
        ehlo("return reject(550, 'no', enhanced='4.7.1')"),
        "filter.ehlo: reject(550, 'no', enhanced='4.7.1'): enhanced='4.7.1' is not an enhanced "
        "code of class 5 (RFC 3463)",
    ),
    "an enhanced code in its place": (
        ehlo("return reject(550, '5.7.1', 'no')"),
        "filter.ehlo: reject(code, text) does not take this (too many positional arguments)",
    ),
    "text that is bytes": (
        ehlo("return reject(550, b'no')"),
        "filter.ehlo: reject(550, b'no'): the text of a decision is a str, not bytes",
    ),
    "a rewrite to nothing": (
        ehlo("return rewrite('')"),
        "filter.ehlo: rewrite(''): rewrite() takes a non-empty str, not ''",
    ),
    "junk with a reason": (
        ehlo("return junk('spam')"),
        "filter.ehlo: junk() does not take this (too many positional arguments)",
    ),
    "one for a deferred answer": (
        ehlo("ctx.reply(reject(250, 'fine'))\nreturn ctx.defer()"),
        f"filter.ehlo: reject(250, 'fine'): {CODES} 250 (RFC 5321, 4.2.1)",
    ),
    "taken from the context": (
        ehlo("return ctx.reject(550, 'no')"),
        "filter.ehlo: reads ctx.reject, which is not there; write: from greenfilter import reject",
    ),
    "what the context does not have": (
        ehlo("print(ctx.mail_from)"),
        "filter.ehlo: reads ctx.mail_from, which is not there",
    ),
}
GOOD = {
    "in a variable": ehlo("answer = None\nif identity: answer = reject(550, 'no')\nreturn answer"),
    "in a container": ehlo("return {True: reject(550, 'no'), False: junk()}[identity == 'x']"),
    "by a function": ehlo("return deny(identity)", "def deny(x):\n    return reject(550, x)"),
    "with what nobody can see": ehlo(
        "code, more = 550, {}\nreturn reject(code, identity, **more)", "CODE = 250"
    ),
    "later": ehlo(
        "threading.Thread(target=ctx.reply, args=(reject(450, 'x'),)).start()\nreturn ctx.defer()"
    ),
    "made for a policy": ehlo("return None", "NO = reject(550, 'no')"),
    "what somebody else's function of that name makes": ehlo(
        "reject(250)\nother.reject('x')",
        "import types\ndef reject(x): pass\nother = types.SimpleNamespace(reject=print)",
    ),
    "a message's bytes": f"{TOP}@app.message\ndef look(ctx, message):\n    return b'Subject: x'\n",
    "lines in a list": f"{TOP}@app.filter.data_line\ndef look(ctx, line): return [line, DROP]\n",
    "lines that are returned": f"{TOP}@app.lines\ndef look(ctx, lines): return map(bytes, lines)\n",
    "all of them": ehlo("return proceed() if identity else rewrite(identity)"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, list[str]]:
    filters = {f"error {name}": text for name, (text, _) in ERRORS.items()}
    filters |= {f"good {name}": text for name, text in GOOD.items()}
    return check_all(tmp_path_factory.mktemp("filters"), filters, [])


@pytest.mark.parametrize("name", ERRORS)
def test_a_decision_that_comes_to_nothing_is_an_error(name, said):
    (problem,) = said[f"error {name}"]
    place, line, text = problem.split(":", 2)
    assert (place, text.strip()) == ("guard.py", ERRORS[name][1])
    assert int(line) > 3


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_of_a_decision_that_is_returned(name, said):
    assert said[f"good {name}"] == []


def test_the_line_is_where_the_decision_is_made(tmp_path):
    text = ehlo("print()\nreject(550, 'no')")
    said = check_all(tmp_path, {"one": text}, [])
    number = ("x\n" * 3 + text).split("\n").index("    reject(550, 'no')") + 1
    assert said["one"][0].startswith(f"guard.py:{number}: ")


def test_an_async_handler_is_refused_when_it_is_registered(check):
    done = check("@app.filter.ehlo\nasync def look(ctx, identity): ...\n")
    assert done.stderr.endswith(
        "guard.py:5: filter.ehlo: look is async; write plain, blocking code instead\n"
    )
    assert done.returncode == 1
